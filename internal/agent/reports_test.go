// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package agent

import (
	"context"
	"log/slog"
	"slices"
	"testing"

	"k8s.io/utils/clock"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

// TestThreeReportsAMove at most, however it ends and however long each step takes.
func TestThreeReportsAMove(t *testing.T) {
	for name, tc := range map[string]struct {
		prepare func(*body)
		want    int
	}{
		"succeeds":             {func(*body) {}, 3},
		"refused":              {func(b *body) { b.preflight = &Refusal{Reason: "x", Err: errDiskFull} }, 2},
		"cannot be fetched":    {func(b *body) { b.fetchErr, b.retries = errDiskFull, 9 }, 2},
		"fetched with trouble": {func(b *body) { b.retries = 9 }, 3},
		"unhealthy":            {func(b *body) { b.bad[newSystem] = true }, 3},
		"fails":                {func(b *body) { b.exit[newSystem] = 1 }, 3},
		"cannot report":        {func(b *body) { b.confirmErr = context.DeadlineExceeded }, 3},
		"cannot be committed":  {func(b *body) { b.bootFails[newSystem] = true }, 3},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBody(t)
			tc.prepare(b)
			m := b.start(t, "boot-1")
			if err := m.begin(m.host); err != nil {
				t.Fatal(err)
			}
			if err := m.move(t.Context()); err != nil {
				t.Fatal(err)
			}
			writes := b.reports + b.confirms
			if b.confirmErr != nil {
				writes -= b.confirms // none arrived
			}
			if writes != tc.want {
				t.Errorf("%d reports, want %d", writes, tc.want)
			}
			if b.retries > 0 && !slices.Contains(b.events, "FetchRetried") {
				t.Error("nobody is told that the fetch does not go well")
			}
		})
	}
}

// TestOutcomesAreKeptWhileOffline carries out three orders that an offline host has got
// before, over a restart of its agent; all of their outcomes arrive, with one report.
func TestOutcomesAreKeptWhileOffline(t *testing.T) {
	b := newBody(t)
	b.reachable = false
	for revision, path := range []nfv1.StorePath{nfv1.StorePath(newSystem), nfv1.StorePath(oldSystem), nfv1.StorePath(newSystem)} {
		m := b.start(t, "boot-1") // a new process each time
		m.host.Spec.Desired.Revision, m.host.Spec.Desired.StorePath = int64(revision+1), path
		m.Reporter = mute{}
		if revision == 2 {
			b.exit[newSystem] = 1
		}
		if err := m.begin(m.host); err != nil {
			t.Fatal(err)
		}
		if err := m.move(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	h := order1()
	h.Spec.Desired.Revision = 3
	g := newFakeGateway(t, h)
	runAgent(t, b, g)
	g.await(t, "the outcome", g.ended(3))
	g.mu.Lock()
	defer g.mu.Unlock()
	var got []nfv1.AttemptOutcome
	for _, a := range g.last().History {
		got = append(got, a.Outcome)
	}
	if want := []nfv1.AttemptOutcome{nfv1.AttemptRolledBack, nfv1.AttemptSucceeded, nfv1.AttemptSucceeded}; !slices.Equal(got, want) {
		t.Errorf("the history says %v, want %v", got, want)
	}
	if len(g.statuses) != 1 {
		t.Errorf("%d reports", len(g.statuses))
	}
}

// TestNewestReportWins while none can be delivered, and is delivered once.
func TestNewestReportWins(t *testing.T) {
	g := newFakeGateway(t, order1())
	g.down = true
	r := newReports(g.client(t), clock.RealClock{}, slog.New(slog.DiscardHandler))
	r.about(order1())
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.run(t.Context())
	}()
	t.Cleanup(func() { <-done })
	for n := range int64(50) {
		r.Report(nfv1.HostStatus{ObservedRevision: n}, n%2 == 0)
	}
	r.Amend(nfv1.HostStatus{ObservedRevision: 50})
	g.update(func() { g.down = false })
	g.await(t, "the newest report", func() bool { return g.last().ObservedRevision == 50 })
	r.Amend(nfv1.HostStatus{ObservedRevision: 51}) // nothing waits any more
	r.Report(nfv1.HostStatus{ObservedRevision: 52}, false)
	g.await(t, "the last report", func() bool { return g.last().ObservedRevision == 52 })
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.statuses) != 2 {
		t.Errorf("%d reports: %+v", len(g.statuses), g.statuses)
	}
}
