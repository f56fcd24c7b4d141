// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"k8s.io/utils/clock"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

// Agent is a Machine that listens to the control plane.
type Agent struct {
	machine   *Machine
	client    *Client
	reports   *reports
	clock     clock.WithTicker
	heartbeat time.Duration
	log       *slog.Logger
	hosts     chan *nfv1.Host
}

// newAgent puts an agent together. The machine's Reporter is set here.
func newAgent(m *Machine, c *Client, heartbeat time.Duration, log *slog.Logger) *Agent {
	r := newReports(c, m.Clock, log)
	r.fetch, r.metrics = m.fetch.Load, m.Metrics
	m.Reporter = r
	return &Agent{machine: m, client: c, reports: r, clock: m.Clock, heartbeat: heartbeat, log: log, hosts: make(chan *nfv1.Host, 1)}
}

// run works until ctx ends. An activation in progress is left to the next start.
func (a *Agent) run(ctx context.Context) {
	var wg sync.WaitGroup
	for _, f := range []func(context.Context){a.watch, a.beat, a.reports.run, a.reports.runEvents} {
		wg.Go(func() { f(ctx) })
	}
	a.work(ctx)
	wg.Wait()
}

// watch keeps the newest Host in the channel.
func (a *Agent) watch(ctx context.Context) {
	backoff := newBackoff()
	for ctx.Err() == nil {
		began := a.clock.Now()
		err := a.client.Watch(ctx, func(h *nfv1.Host) {
			backoff = newBackoff()
			if h == nil {
				a.log.Warn("There is no Host of this name; nothing is asked of this machine")
				return
			}
			a.offer(h)
		})
		if ctx.Err() != nil {
			return
		}
		if a.clock.Since(began) < time.Minute {
			a.log.Warn("The control plane is not heard", "error", err)
		}
		a.reports.sleep(ctx, backoff.Step())
	}
}

// offer puts a Host into the channel, in place of one that nobody has taken.
func (a *Agent) offer(h *nfv1.Host) {
	a.reports.about(h)
	for {
		select {
		case a.hosts <- h:
			return
		default:
		}
		select {
		case <-a.hosts:
		default:
		}
	}
}

// beat renews the Lease, sooner again if that failed.
func (a *Agent) beat(ctx context.Context) {
	backoff := newBackoff()
	failing := false
	for {
		pause := jitter(a.heartbeat)
		err := a.client.RenewLease(ctx, a.heartbeat, a.clock.Now())
		if err != nil {
			pause = min(pause, backoff.Step())
			if ctx.Err() == nil && !failing {
				a.log.Warn("The Lease could not be renewed; it is tried again", "error", err)
			}
		} else {
			backoff = newBackoff()
		}
		failing = err != nil
		if !a.reports.sleep(ctx, pause) {
			return
		}
	}
}

// jitter spreads a period by a tenth either way.
func jitter(d time.Duration) time.Duration {
	return d + time.Duration((rand.Float64()-0.5)*0.2*float64(d)) //nolint:gosec // spreads load, guards nothing
}

// restInterval is how often the running system is looked at while nothing is asked.
const restInterval = 60 * time.Second

// work carries out what Hosts ask, one after the other.
func (a *Agent) work(ctx context.Context) {
	m := a.machine
	rest := a.clock.NewTimer(0)
	defer rest.Stop()
	// What was left half done does not wait for the control plane.
	a.resume(ctx)
	heard := false
	tick, stop := m.Notify.ticker()
	defer stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick:
			m.Notify.alive()
			continue
		case h := <-a.hosts:
			m.host = h
			if !heard {
				heard = true
				m.adopt(h)
				m.look(ctx)
				if decide(m.journal, h) != orderMove { // an attempt reports itself
					m.report(false)
				}
			}
		case <-rest.C():
			if m.unsettled() {
				a.resume(ctx)
			}
			m.rest(ctx)
			rest.Reset(jitter(min(restInterval, 15*a.heartbeat)))
		}
		// Asked again at each tick, for what could not be begun, by a full disk for one.
		if heard && !m.unsettled() {
			a.handle(ctx, m.host)
			a.correctDrift(ctx)
		}
	}
}

func (a *Agent) resume(ctx context.Context) {
	m := a.machine
	m.expectStep()
	err := m.Notify.attend(m, func() error { return m.resume(ctx) })
	if err != nil && ctx.Err() == nil {
		a.machine.problem = "an attempt was left open and cannot be brought to an end: " + err.Error()
		a.log.Error("Resume the open attempt", "error", err)
	}
}

// handle does what a Host asks. A fetch is given up when something newer is asked; from
// the activation on an attempt is brought to its end first.
func (a *Agent) handle(ctx context.Context, h *nfv1.Host) {
	m := a.machine
	switch decide(m.journal, h) {
	case orderNothing:
		m.dropOpen()
		if m.reported.ObservedGeneration != h.Generation {
			m.report(false)
		}
		return
	case orderAcknowledge:
		a.begin(h)
		m.report(false)
		return
	}
	if !a.begin(h) {
		m.report(false)
		return
	}
	a.carryOut(ctx, h, m.move)
}

// carryOut does what takes long, and listens meanwhile.
func (a *Agent) carryOut(ctx context.Context, h *nfv1.Host, do func(context.Context) error) {
	m := a.machine
	done := make(chan error, 1)
	go func() { done <- do(ctx) }()
	var newest *nfv1.Host
	tick, stop := m.Notify.ticker()
	defer stop()
	for {
		select {
		case <-tick:
			m.Notify.feed(m)
		case newest = <-a.hosts:
			if d := newest.Spec.Desired; newest.UID != h.UID || d != nil && (h.Spec.Desired == nil || d.Revision > h.Spec.Desired.Revision) {
				m.giveUp()
			}
		case err := <-done:
			if err != nil && ctx.Err() == nil {
				a.log.Info("The attempt stands", "reason", err)
			}
			if newest != nil {
				select {
				case a.hosts <- newest:
				default: // there is one that is newer still
				}
			}
			return
		}
	}
}

func (a *Agent) begin(h *nfv1.Host) bool {
	m := a.machine
	if err := m.begin(h); err != nil {
		m.problem = fmt.Sprintf("revision %d was not begun and nothing was changed: %v", h.Spec.Desired.Revision, err)
		a.log.Error("Begin an attempt", "error", err)
		return false
	}
	m.problem = ""
	return true
}

// corrupt reports whether a journal was put aside.
func corrupt(err error) bool {
	var c *CorruptJournalError
	return errors.As(err, &c)
}
