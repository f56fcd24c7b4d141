// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package agent

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/utils/clock"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

// quick is how long a report that may wait is held back: the steps of a quick host are
// over by then, and only the last one is told.
const quick = 2 * time.Second

// reports delivers the newest status. While the control plane cannot be reached the
// newest is kept and tried again; an outcome is part of every later status, so none is
// lost.
type reports struct {
	client *Client
	clock  clock.WithTicker
	fetch  func() *nfv1.FetchProgress // how the fetch that is under way goes; nil if none is
	log    *slog.Logger

	metrics *metrics

	mu         sync.Mutex
	host       *nfv1.Host
	newest     *nfv1.HostStatus // what waits; nil while it is on its way
	amended    *nfv1.HostStatus // what waits if the one that is on its way does not arrive
	taken      int              // counts what was handed in, so that nothing older comes back
	sendAt     time.Time
	cancelSend context.CancelFunc

	// sending is held while a status is on its way: two may not overtake each other.
	sending sync.Mutex

	changed chan struct{}
	events  chan queuedEvent
	known   chan struct{} // closed when the Host is known
}

type queuedEvent struct{ kind, reason, note string }

func newReports(c *Client, clk clock.WithTicker, log *slog.Logger) *reports {
	return &reports{
		fetch:  func() *nfv1.FetchProgress { return nil },
		client: c, clock: clk, log: log,
		changed: make(chan struct{}, 1), events: make(chan queuedEvent, 32), known: make(chan struct{}),
	}
}

// about says which Host object the reports are for.
func (r *reports) about(h *nfv1.Host) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.host == nil {
		close(r.known)
	}
	r.host = h
	r.poke()
}

// poke wakes the loop that delivers reports.
func (r *reports) poke() {
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

// Report implements Reporter.
func (r *reports) Report(s nfv1.HostStatus, soon bool) {
	at := r.clock.Now()
	if soon {
		at = at.Add(quick)
	}
	r.mu.Lock()
	if r.newest == nil || !soon || at.Before(r.sendAt) {
		r.sendAt = at
	}
	r.newest = s.DeepCopy()
	r.taken++
	r.mu.Unlock()
	r.poke()
}

// Amend implements Reporter.
func (r *reports) Amend(s nfv1.HostStatus) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.newest != nil:
		r.newest = s.DeepCopy()
	case r.cancelSend != nil:
		r.amended = s.DeepCopy() // should what is on its way not arrive
	}
}

// Confirm implements Reporter.
func (r *reports) Confirm(ctx context.Context, s nfv1.HostStatus) error {
	// What waits or is on its way, over a connection that may be dead, is older.
	r.mu.Lock()
	r.newest = nil
	r.taken++
	if r.cancelSend != nil {
		r.cancelSend()
	}
	r.mu.Unlock()
	r.sending.Lock()
	defer r.sending.Unlock()
	backoff := wait.Backoff{Steps: 1 << 30, Duration: 200 * time.Millisecond, Factor: 1.5, Jitter: 0.2, Cap: 5 * time.Second}
	for {
		r.mu.Lock()
		host := r.host
		r.mu.Unlock()
		err := errNoHost
		if host != nil {
			err = r.client.PatchStatusFresh(ctx, host, s)
		}
		if err == nil {
			r.metrics.reported(r.clock.Now())
			return nil
		}
		r.log.Warn("The new system could not report yet", "error", err)
		if !r.sleep(ctx, backoff.Step()) {
			return errors.Join(ctx.Err(), err)
		}
	}
}

var errNoHost = errors.New("the Host object is not known yet")

// Reachable implements Reporter.
func (r *reports) Reachable() bool { return r.client.Reachable() }

// Event implements Reporter. Events are a courtesy: one that finds no room is dropped,
// since the status says the same.
func (r *reports) Event(kind, reason, note string) {
	select {
	case r.events <- queuedEvent{kind, reason, note}:
	default:
		r.log.Warn("Too many events wait; one is dropped", "reason", reason)
	}
}

func (r *reports) sleep(ctx context.Context, d time.Duration) bool {
	t := r.clock.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C():
		return true
	}
}

// run delivers reports until ctx ends.
func (r *reports) run(ctx context.Context) {
	backoff := newBackoff()
	for ctx.Err() == nil {
		s, host, in := r.due()
		switch {
		case s == nil:
			select {
			case <-ctx.Done():
			case <-r.changed:
			}
		case in > 0:
			r.waitFor(ctx, in)
		case r.send(ctx, host, s):
			backoff = newBackoff()
		default:
			r.sleep(ctx, backoff.Step())
		}
	}
}

func (r *reports) waitFor(ctx context.Context, d time.Duration) {
	t := r.clock.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C():
	case <-r.changed:
	}
}

func (r *reports) due() (*nfv1.HostStatus, *nfv1.Host, time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.newest == nil || r.host == nil {
		return nil, nil, 0
	}
	return r.newest, r.host, r.sendAt.Sub(r.clock.Now())
}

// send delivers the status that waits and reports whether it needs no further try.
func (r *reports) send(ctx context.Context, host *nfv1.Host, s *nfv1.HostStatus) bool {
	r.sending.Lock()
	defer r.sending.Unlock()
	sctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r.mu.Lock()
	if r.newest != s {
		r.mu.Unlock()
		return true // something newer came meanwhile
	}
	r.newest, r.cancelSend = nil, cancel
	taken := r.taken
	r.mu.Unlock()
	delivered := r.deliver(sctx, host, s)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cancelSend = nil
	if !delivered && r.taken == taken {
		r.newest = s
		if r.amended != nil {
			r.newest = r.amended
		}
	}
	r.amended = nil
	return delivered || r.taken != taken
}

func (r *reports) deliver(ctx context.Context, host *nfv1.Host, s *nfv1.HostStatus) bool {
	if f := r.fetch(); f != nil && s.Phase == nfv1.HostPhaseFetching {
		s.Fetch = f // it has gone on since the report was made
	}
	err := r.client.PatchStatus(ctx, host, *s)
	var refused *StatusError
	switch {
	case err == nil:
		r.metrics.reported(r.clock.Now())
	case errors.As(err, &refused) && (refused.Code == http.StatusBadRequest || refused.Code == http.StatusUnprocessableEntity):
		r.log.Error("The control plane refuses this report for good", "error", err)
	default:
		if ctx.Err() == nil {
			r.log.Warn("A report could not be delivered; it is kept", "error", err)
		}
		return false
	}
	return true
}

// runEvents delivers events, each a few times.
func (r *reports) runEvents(ctx context.Context) {
	select {
	case <-ctx.Done():
		return
	case <-r.known:
	}
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-r.events:
			r.sendEvent(ctx, e)
		}
	}
}

func (r *reports) sendEvent(ctx context.Context, e queuedEvent) {
	backoff := newBackoff()
	for range 5 {
		r.mu.Lock()
		host := r.host
		r.mu.Unlock()
		err := r.client.CreateEvent(ctx, host, e.kind, e.reason, e.note, r.clock.Now())
		var refused *StatusError
		if err == nil || errors.As(err, &refused) && refused.Code < http.StatusInternalServerError && refused.Code != http.StatusTooManyRequests {
			if err != nil {
				r.log.Warn("An event was refused", "reason", e.reason, "error", err)
			}
			return
		}
		if !r.sleep(ctx, backoff.Step()) {
			return
		}
	}
}

func newBackoff() *wait.Backoff {
	return &wait.Backoff{Steps: 1 << 30, Duration: 500 * time.Millisecond, Factor: 1.6, Jitter: 0.3, Cap: 30 * time.Second}
}
