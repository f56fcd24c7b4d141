// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package gateway

import (
	"context"
	"net/http"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/time/rate"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/certwatcher"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/nixfleet/nixfleet/internal/identity"
)

// Gateway serves agents. It runs on every replica of the manager, each with its own
// memory of the fleet, whether it leads or not.
type Gateway struct {
	options  Options
	clock    clock.WithTickerAndDelayedExecution
	log      logr.Logger
	filter   filter
	hub      *hub
	upstream *upstream
	metrics  *measures
	certs    *certwatcher.CertWatcher

	// refusals keeps a host that is refused again and again from filling the log.
	refusals *rate.Limiter
	// stopping is closed when the gateway shuts down: watches end then.
	stopping chan struct{}
	// serving is closed when the gateway listens.
	serving chan struct{}
}

var (
	_ manager.Runnable               = &Gateway{}
	_ manager.LeaderElectionRunnable = &Gateway{}
	_ http.Handler                   = &Gateway{}
)

// New returns a gateway that Start runs. It fails if an option is missing or if the
// certificate cannot be read.
func New(o Options) (*Gateway, error) {
	if err := o.setDefaults(); err != nil {
		return nil, err
	}
	up, err := newUpstream(o.Config)
	if err != nil {
		return nil, err
	}
	certs, err := watchCertificate(o.CertDir)
	if err != nil {
		return nil, err
	}
	counted, err := newMetrics(o.Registry)
	if err != nil {
		return nil, err
	}
	return &Gateway{
		options: o, clock: o.Clock, log: o.Log,
		filter: newFilter(), upstream: up, metrics: counted, certs: certs,
		hub:      newHub(o.Clock, o.limits(), func(delta int) { counted.streams.Add(float64(delta)) }),
		refusals: rate.NewLimiter(2, 20),
		stopping: make(chan struct{}), serving: make(chan struct{}),
	}, nil
}

// NeedLeaderElection says that every replica serves.
func (*Gateway) NeedLeaderElection() bool { return false }

// call is one request while it is being answered.
type call struct {
	w       *recorder
	r       *http.Request
	control *http.ResponseController
	log     logr.Logger
	peer    *peer

	pin     identity.Pin
	request request
	event   *hostEvent
	err     error // Why the answer did not reach the client.
}

func (c *call) answer(code int, body any) { c.err = writeJSON(c.w, code, body) }

// ServeHTTP answers one request of an agent.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := g.clock.Now()
	p, _ := r.Context().Value(peerKey{}).(*peer)
	if p == nil { // Not by our own server; nothing could be revoked.
		http.Error(w, "no connection", http.StatusInternalServerError)
		return
	}
	rec := &recorder{ResponseWriter: w}
	c := &call{w: rec, r: r, control: http.NewResponseController(w), log: g.log, peer: p}
	ref := g.serve(c)
	if ref != nil {
		c.err = ref.write(c.w)
	}
	g.account(c, ref, g.clock.Since(start))
}

// serve takes the request through the steps of the package's documentation.
func (g *Gateway) serve(c *call) (ref *refusal) {
	deadline := time.Now().Add(g.options.RequestTimeout)
	// HTTP/1 and HTTP/2 of the standard library both have deadlines; without one the
	// request is still bounded by its context.
	_ = c.control.SetReadDeadline(deadline)
	_ = c.control.SetWriteDeadline(deadline)
	if c.pin, ref = peerPin(c.r.TLS); ref != nil {
		return ref
	}
	if c.request, ref = g.filter.parse(c.r); ref != nil {
		return ref
	}
	if ref = acceptsJSON(c.r.Header); ref != nil {
		return ref
	}
	if c.request.action == actionCreateEvent {
		if c.event, ref = readEvent(c); ref != nil {
			return ref
		}
		c.request.host.Name = c.event.Regarding.Name
	}
	host, ref := g.hub.admit(c.peer, c.pin, c.request.host)
	if ref != nil {
		return ref
	}
	if c.request.action == actionWatch {
		// A watch lasts; each of its events has a deadline of its own.
		_ = c.control.SetReadDeadline(time.Time{})
		return g.serveWatch(c)
	}
	ctx, cancel := context.WithDeadline(c.r.Context(), deadline)
	defer cancel()
	c.r = c.r.WithContext(ctx)
	switch c.request.action {
	case actionGet:
		return g.serveGet(c, host)
	case actionList:
		return g.serveList(c, host)
	default:
		return g.serveWrite(c, host)
	}
}

// account counts and logs a request that has been answered.
func (g *Gateway) account(c *call, ref *refusal, took time.Duration) {
	g.metrics.answered(c.request.action, c.w.code, took)
	rule := c.request.action.rule()
	log := c.log.WithValues("host", c.request.host.String(), "verb", rule.verb, "resource", rule.resource,
		"code", c.w.code, "duration", took.String(), "remote", c.r.RemoteAddr)
	if ref == nil {
		log.V(1).Info("Request", "error", errorText(c.err))
		return
	}
	g.metrics.refused.WithLabelValues(string(ref.cause)).Inc()
	if g.refusals.AllowN(g.clock.Now(), 1) {
		log.Info("Request refused", "cause", string(ref.cause), "message", ref.status.Message)
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// recorder remembers the code of an answer.
type recorder struct {
	http.ResponseWriter
	code int
}

// WriteHeader implements http.ResponseWriter.
func (r *recorder) WriteHeader(code int) {
	r.code = code
	r.ResponseWriter.WriteHeader(code)
}
