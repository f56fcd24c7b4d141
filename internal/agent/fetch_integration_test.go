//go:build integration

// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package agent

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/nix"
	"github.com/nixfleet/nixfleet/internal/nix/nixtest"
)

// hold keeps the contents of one path back until the answer is called.
func hold(t *testing.T, c *nixtest.Cache, path nix.StorePath) (release func()) {
	t.Helper()
	_, rest, _ := strings.Cut(c.Narinfo(path), "URL: ")
	url, _, _ := strings.Cut(rest, "\n")
	held := make(chan struct{})
	c.Intercept(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/"+url {
				select {
				case <-held:
				case <-r.Context().Done():
					return
				}
			}
			next.ServeHTTP(w, r)
		})
	})
	return func() { close(held) }
}

// order asks for a system without waiting for it.
func (h *realHost) order(revision int64, path nix.StorePath) {
	h.g.update(func() {
		o := order1()
		o.Spec.Desired.Revision, o.Spec.Desired.StorePath, o.Spec.Desired.Caches = revision, nfv1.StorePath(path), []nfv1.CacheURL{nfv1.CacheURL(h.cache)}
		o.Status = h.g.host.Status
		h.g.host = o
	})
}

func allButOne(f *nfv1.FetchProgress) bool {
	return f != nil && f.PathsTotal > 2 && f.PathsDone == f.PathsTotal-1 && f.BytesDone > 10_000 && f.BytesTotal > f.BytesDone
}

// TestRealProgressIsReported tells with the report that an order was accepted how far the
// fetch has come by then, and not more often.
func TestRealProgressIsReported(t *testing.T) {
	h := newRealHost(t)
	path := h.w.BuildSystem(nixtest.Spec{Host: "h", Version: "new", Ballast: 50_000})
	h.w.PushSigned(h.key, path)
	release := hold(t, h.w.Cache(), path)
	h.order(1, path)
	h.g.await(t, "how far the fetch is", func() bool {
		return h.g.last().Phase == nfv1.HostPhaseFetching && allButOne(h.g.last().Fetch)
	})
	release()
	h.g.await(t, "the outcome", h.g.ended(1))
	h.g.mu.Lock()
	defer h.g.mu.Unlock()
	accepted := slices.IndexFunc(h.g.statuses, func(s nfv1.HostStatus) bool { return s.Attempt != nil && s.Attempt.Revision == 1 })
	if n := len(h.g.statuses) - accepted; n > 3 {
		t.Errorf("%d reports of one move", n)
	}
	if s := h.g.last(); s.Fetch != nil {
		t.Errorf("at rest it still tells of a fetch: %+v", s.Fetch)
	}
}

// TestRealFetchGoesOn ends the fetch in the middle, for a newer order; what has come by
// then is not fetched again.
func TestRealFetchGoesOn(t *testing.T) {
	h := newRealHost(t)
	path := h.w.BuildSystem(nixtest.Spec{Host: "h", Version: "new", Ballast: 50_000})
	h.w.PushSigned(h.key, path)
	release := hold(t, h.w.Cache(), path)
	h.order(1, path)
	h.g.await(t, "all but one path", func() bool {
		return allButOne(h.g.last().Fetch)
	})
	h.w.Cache().Requests()
	h.order(2, path)
	release()
	h.g.await(t, "the outcome", h.g.ended(2))
	h.wantRuns(path)
	var fetched []string
	for _, r := range h.w.Cache().Requests() {
		if strings.HasPrefix(r, "/nar/") {
			fetched = append(fetched, r)
		}
	}
	if len(slices.Compact(fetched)) != 1 {
		t.Errorf("fetched again: %v", fetched)
	}
}
