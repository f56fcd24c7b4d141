// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package binarycache

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nixfleet/nixfleet/internal/nix"
)

func TestNarinfoErrors(t *testing.T) {
	cases := []struct {
		name     string
		handler  http.HandlerFunc
		kind     error
		detail   string
		attempts int
	}{
		{"404", status(404), ErrMissing, "", 1},
		{"403", status(403), ErrMissing, "", 1},
		{"410", status(410), ErrMissing, "", 1},
		{"401", status(401), ErrUnreachable, "credentials", 1},
		{"418", status(418), ErrUnreachable, "status 418", 1},
		{"204", status(204), ErrUnreachable, "status 204", 1},
		{"429", status(429), ErrUnreachable, "status 429", 3},
		{"500", status(500), ErrUnreachable, "status 500", 3},
		{"503", status(503), ErrUnreachable, "status 503", 3},
		{"HTML", text("<html>"), ErrInvalid, "does not begin", 1},
		{"endless", text("StorePath: " + strings.Repeat("x", maxNarinfo)), ErrInvalid, "more than", 1},
		{"hangs up", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, ErrUnreachable, "closed the connection", 3},
		{"hangs up in the middle", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			_, _ = w.Write([]byte("StorePath: "))
		}, ErrUnreachable, "closed the connection", 3},
		{"to another scheme", redirect("ftp://127.0.0.1/x"), ErrUnreachable, "redirected from http to ftp", 1},
		{"up to https", redirect("https://127.0.0.1:1/x"), ErrUnreachable, "redirected from http to https", 1},
		{"for ever", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path, http.StatusFound) },
			ErrUnreachable, "redirected more than 5 times", 1},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			attempts := 0
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if len(r.Header["Referer"]) == 0 { // Not a request that followed a redirect.
					attempts++
				}
				tc.handler(w, r)
			}))
			defer srv.Close()
			_, err := testClient().Narinfo(t.Context(), srv.URL, samplePath)
			var failure *CacheError
			if !errors.As(err, &failure) || !errors.Is(err, tc.kind) || !strings.Contains(failure.Detail, tc.detail) {
				t.Fatalf("got %v, want %v with %q", err, tc.kind, tc.detail)
			}
			if failure.Cache != srv.URL || !strings.Contains(err.Error(), srv.URL) {
				t.Errorf("the error does not name the cache: %v", err)
			}
			srv.CloseClientConnections()
			if attempts != tc.attempts {
				t.Errorf("%d attempts, want %d", attempts, tc.attempts)
			}
		})
	}
}

func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

func text(s string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(s)) }
}

func redirect(to string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, to, http.StatusFound) }
}

func TestNarinfoFollowsARedirect(t *testing.T) {
	target := newServer(t)
	target.set(file(samplePath), sample)
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, target.url+r.URL.Path, http.StatusFound)
	}))
	defer front.Close()
	got, err := testClient().Narinfo(t.Context(), front.URL, samplePath)
	if diff := cmp.Diff(sampleInfo(), got); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
}

func TestNarinfoTriesAgain(t *testing.T) {
	attempts := 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if attempts++; attempts < 3 {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		_, _ = w.Write([]byte(sample))
	}))
	defer srv.Close()
	if _, err := testClient().Narinfo(t.Context(), srv.URL, samplePath); err != nil {
		t.Fatal(err)
	}
}

// TestUnreachableTextIsStable: the text becomes part of a condition, so it must not have
// anything in it that differs from try to try.
func TestUnreachableTextIsStable(t *testing.T) {
	closed := httptest.NewServer(nil)
	closed.Close()
	untrusted := httptest.NewTLSServer(nil)
	defer untrusted.Close()
	release := make(chan struct{})
	silent := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}))
	defer silent.Close()
	defer close(release)
	reset := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	defer reset.Close()
	for url, want := range map[string]string{
		closed.URL:                "connection refused",
		untrusted.URL:             "unknown authority",
		silent.URL:                "did not answer in time",
		reset.URL:                 "closed the connection",
		"http://cache.invalid":    "cannot be resolved",
		"http://127.0.0.1:1/path": "connection refused",
	} {
		// Long enough for a slow machine, where the answer is not that there is none.
		timeout := 10 * time.Second
		if url == silent.URL {
			timeout = 300 * time.Millisecond
		}
		client := testClient(WithTimeout(timeout), WithAttempts(1))
		var texts [2]string
		for i := range texts {
			err := client.CheckCache(t.Context(), url)
			if !errors.Is(err, ErrUnreachable) {
				t.Fatalf("%s: %v", url, err)
			}
			texts[i] = err.Error()
		}
		// Some resolvers never answer for names that do not exist.
		unresolved := url == "http://cache.invalid" && strings.HasSuffix(texts[0], "in time")
		if texts[0] != texts[1] || !strings.HasSuffix(texts[0], want) && !unresolved {
			t.Errorf("%s: %q and %q, want the same with %q at the end", url, texts[0], texts[1], want)
		}
	}
}

func TestGetStopsWithTheContext(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("shutting down")
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		cancel(stop)
		w.WriteHeader(http.StatusInternalServerError)
	}))
	defer srv.Close()
	client := NewClient(WithBackoff(func(int) time.Duration { return time.Hour }))
	if _, err := client.Narinfo(ctx, srv.URL, samplePath); !errors.Is(err, stop) {
		t.Errorf("got %v, want %v", err, stop)
	}
}

func TestBackoffGrowsWithinBounds(t *testing.T) {
	for attempt := 1; attempt <= 4; attempt++ {
		base := baseBackoff << (attempt - 1)
		for range 100 {
			if d := jitteredBackoff(attempt); d < base/2 || d >= base*3/2 {
				t.Fatalf("pause before attempt %d is %s", attempt, d)
			}
		}
	}
}

func TestDiskNeed(t *testing.T) {
	key := newKey(t, "fleet")
	a, b := newServer(t), newServer(t)
	a.put(entry{name: "one", refs: []string{"one", "here", "dep"}, key: &key, size: 1000})
	b.put(entry{name: "dep", refs: []string{"base"}, size: 4000}, entry{name: "base", size: 200})
	// What is below a path that is there is not asked for.
	local := map[nix.StorePath]bool{path("here"): true}
	missing := func(_ context.Context, asked []nix.StorePath) ([]nix.StorePath, error) {
		var absent []nix.StorePath
		for _, p := range asked {
			if !local[p] {
				absent = append(absent, p)
			}
		}
		return absent, nil
	}
	caches := []string{a.url, b.url}
	got, err := testClient().DiskNeed(t.Context(), path("one"), caches, missing)
	want := Need{Paths: 3, DownloadBytes: 2600, NarBytes: 5200, LargestNar: 4000}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
	if n := a.asked(file(path("here"))); n != 0 {
		t.Errorf("a path that is there was asked for %d times", n)
	}
	local[path("one")] = true
	if got, err := testClient().DiskNeed(t.Context(), path("one"), caches, missing); err != nil || got != (Need{}) {
		t.Errorf("with everything there: %+v, %v", got, err)
	}
	local[path("one")] = false
	a.put(entry{name: "one", refs: []string{"gone"}})
	if _, err := testClient().DiskNeed(t.Context(), path("one"), caches, missing); !errors.Is(err, ErrMissing) || !strings.Contains(fmt.Sprint(err), string(path("gone"))) {
		t.Errorf("with a path missing: %v", err)
	}
	broken := errors.New("the store is locked")
	_, err = testClient().DiskNeed(t.Context(), path("one"), caches, func(context.Context, []nix.StorePath) ([]nix.StorePath, error) { return nil, broken })
	if !errors.Is(err, broken) {
		t.Errorf("got %v, want %v", err, broken)
	}
}

func TestSignatures(t *testing.T) {
	one, two := newKey(t, "one"), newKey(t, "two")
	a, b, c := newServer(t), newServer(t), newServer(t)
	a.put(entry{name: "x", key: &one})
	b.put(entry{name: "x", key: &two})
	got, err := testClient().Signatures(t.Context(), path("x"), []string{a.url, c.url, b.url})
	if err != nil || len(got) != 2 || !strings.HasPrefix(got[0], "one:") || !strings.HasPrefix(got[1], "two:") {
		t.Errorf("got %q, %v", got, err)
	}
	a.set(file(path("x")), "garbage")
	got, err = testClient().Signatures(t.Context(), path("x"), []string{a.url, b.url})
	if !errors.Is(err, ErrInvalid) || len(got) != 1 {
		t.Errorf("got %q, %v; want what was found and what went wrong", got, err)
	}
}
