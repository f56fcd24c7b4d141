// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package gateway

import (
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	"github.com/munnerz/goautoneg"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/utils/clock"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

// acceptsJSON refuses a client that would not understand the one encoding there is.
// Tables are a service to people, who use the Kubernetes API.
func acceptsJSON(header http.Header) *refusal {
	accept := strings.Join(header.Values("Accept"), ",")
	if strings.TrimSpace(accept) == "" {
		return nil
	}
	for _, clause := range goautoneg.ParseAccept(accept) {
		media := clause.Type + "/" + clause.SubType
		_, asOtherKind := clause.Params["as"]
		if clause.Q > 0 && !asOtherKind && (media == "application/json" || media == "application/*" || media == "*/*") {
			return nil
		}
	}
	return refuse(http.StatusNotAcceptable, metav1.StatusReasonNotAcceptable, causeNotAcceptable,
		"only application/json is served; the request accepts %s", quote(accept))
}

func (g *Gateway) serveGet(c *call, host *nfv1.Host) *refusal {
	c.answer(http.StatusOK, visible(host))
	return nil
}

func (g *Gateway) serveList(c *call, host *nfv1.Host) *refusal {
	c.answer(http.StatusOK, &nfv1.HostList{
		TypeMeta: metav1.TypeMeta{APIVersion: nfv1.GroupVersion.String(), Kind: "HostList"},
		// The version of the one object stands for the list: a watch from here sends
		// the object again only if it has changed.
		ListMeta: metav1.ListMeta{ResourceVersion: host.ResourceVersion},
		Items:    []nfv1.Host{*visible(host)},
	})
	return nil
}

// serveWatch streams the versions of one Host. It is level triggered: what is promised
// is that the newest version always arrives, not that every version does.
func (g *Gateway) serveWatch(c *call) *refusal {
	s, host, ref := g.hub.subscribe(c.peer, c.pin, c.request.host)
	if ref != nil {
		return ref
	}
	defer g.hub.unsubscribe(s)
	out := &eventWriter{w: c.w, control: c.control, timeout: g.options.WriteTimeout}
	c.err = g.stream(c, s, host, out)
	return nil
}

func (g *Gateway) stream(c *call, s *stream, host *nfv1.Host, out *eventWriter) error {
	header := c.w.Header()
	header.Set("Content-Type", "application/json")
	header.Set("Cache-Control", "no-store")
	c.w.WriteHeader(http.StatusOK)
	if err := sendInitial(c.request, host, out); err != nil {
		return err
	}
	var bookmarks <-chan time.Time
	if c.request.options.AllowWatchBookmarks {
		ticker := g.clock.NewTicker(g.options.BookmarkInterval)
		defer ticker.Stop()
		bookmarks = ticker.C()
	}
	timeout := g.watchTimer(c.request)
	defer timeout.Stop()
	for {
		var err error
		select {
		case <-c.r.Context().Done():
			return nil
		case <-g.stopping:
			return nil
		case <-timeout.C():
			return nil
		case <-bookmarks:
			err = out.bookmark(nil)
		case <-s.wake:
			next, final := s.take()
			if final != nil {
				return out.ending(final)
			}
			if next != nil && next.ResourceVersion != out.sent {
				err = out.host(watch.Modified, next)
			}
		}
		if err != nil {
			return err
		}
	}
}

// sendInitial brings the client to the newest version. Resource versions are compared
// for equality only: another one than the client's is news, older or newer.
func sendInitial(req request, host *nfv1.Host, out *eventWriter) error {
	options := req.options
	known := options.ResourceVersion
	initial := options.SendInitialEvents != nil && *options.SendInitialEvents
	switch {
	case initial, known == "", known == "0":
		if err := out.host(watch.Added, host); err != nil {
			return err
		}
	case known != host.ResourceVersion:
		if err := out.host(watch.Modified, host); err != nil {
			return err
		}
	default:
		out.sent = known
	}
	if initial && options.AllowWatchBookmarks {
		return out.bookmark(map[string]string{metav1.InitialEventsAnnotationKey: "true"})
	}
	return out.flush()
}

// watchTimer ends a stream when the client asked for it, and at the latest after a time
// that differs between streams, so that clients spread over replicas again.
func (g *Gateway) watchTimer(req request) clock.Timer {
	limit := g.options.MaxWatch
	limit = limit/2 + rand.N(limit/2+1) //nolint:gosec // Only spreads load.
	if asked := req.options.TimeoutSeconds; asked != nil && *asked > 0 && *asked < int64(limit/time.Second) {
		limit = time.Duration(*asked) * time.Second
	}
	return g.clock.NewTimer(limit)
}
