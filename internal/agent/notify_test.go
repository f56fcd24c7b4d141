// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package agent

import (
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/utils/clock"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

// ears are a systemd that listens.
type ears struct {
	mu    sync.Mutex
	heard []string
	at    []time.Time
}

func (e *ears) notifier(every time.Duration) *notifier {
	return &notifier{every: every, clock: clock.RealClock{}, log: slog.New(slog.DiscardHandler), send: func(state string) (bool, error) {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.heard, e.at = append(e.heard, state), append(e.at, time.Now())
		return true, nil
	}}
}

func (e *ears) all() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.heard)
}

// last is how long after begin the last sign of life came.
func (e *ears) last(begin time.Time) time.Duration {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.at) == 0 {
		return 0
	}
	return e.at[len(e.at)-1].Sub(begin)
}

// TestHangingStepIsNotFed feeds systemd's watchdog as long as the step that is being taken
// may take, and not for ever. A fetch that makes progress may take as long as it likes.
func TestHangingStepIsNotFed(t *testing.T) {
	for name, tc := range map[string]struct {
		work func(*Machine, context.Context)
		step nfv1.HostPhase
		from time.Duration // the last sign of life comes between these
		to   time.Duration
	}{
		"in time":                  {func(*Machine, context.Context) { <-time.After(12 * time.Minute) }, nfv1.HostPhaseActivating, 11 * time.Minute, 12 * time.Minute},
		"hangs":                    {func(_ *Machine, ctx context.Context) { <-ctx.Done() }, nfv1.HostPhaseActivating, 14 * time.Minute, 15*time.Minute + time.Second},
		"hangs, but has more time": {func(_ *Machine, ctx context.Context) { <-ctx.Done() }, nfv1.HostPhaseRollingBack, 50 * time.Minute, 60 * time.Minute},
		"a long fetch": {func(m *Machine, _ context.Context) {
			for range 10 {
				<-time.After(30 * time.Minute)
				m.progress(fetchProgress(1, 2))
			}
		}, nfv1.HostPhaseFetching, 299 * time.Minute, 300 * time.Minute},
		"a fetch without progress": {func(_ *Machine, ctx context.Context) { <-ctx.Done() }, nfv1.HostPhaseFetching, 59 * time.Minute, time.Hour + time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var e ears
				n := e.notifier(20 * time.Second)
				m := &Machine{Clock: clock.RealClock{}, Log: slog.New(slog.DiscardHandler)}
				m.journal.Open = &OpenAttempt{Step: tc.step, Timeout: 10 * time.Minute}
				begin := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
				defer cancel()
				m.expectStep()
				if err := n.attend(m, func() error { tc.work(m, ctx); return nil }); err != nil {
					t.Fatal(err)
				}
				if last := e.last(begin); last < tc.from || last > tc.to {
					t.Errorf("the last sign of life came after %s, want %s to %s", last, tc.from, tc.to)
				}
			})
		})
	}
}

// TestEveryStepHasItsTime: one without would be killed at once.
func TestEveryStepHasItsTime(t *testing.T) {
	for _, step := range steps {
		if d := patience(&OpenAttempt{Step: step, Timeout: time.Minute}, time.Minute, time.Minute); d < 2*time.Minute {
			t.Errorf("%s gets %s", step, d)
		}
	}
}

// TestLoopFeedsTheWatchdog at rest, and while it moves the host.
func TestLoopFeedsTheWatchdog(t *testing.T) {
	b := newBody(t)
	g := newFakeGateway(t, order1())
	var e ears
	fetching, fed := make(chan struct{}), make(chan struct{})
	b.onFetch = func(context.Context) error {
		close(fetching)
		<-fed
		return nil
	}
	m := b.start(t, "boot-1")
	m.host, m.Clock = nil, clock.RealClock{}
	m.Notify = e.notifier(time.Millisecond)
	signs := make(chan struct{}, 1)
	send := m.Notify.send
	m.Notify.send = func(state string) (bool, error) {
		select {
		case signs <- struct{}{}:
		default:
		}
		return send(state)
	}
	a := newAgent(m, g.client(t), time.Minute, slog.New(slog.DiscardHandler))
	done := make(chan struct{})
	go func() {
		defer close(done)
		a.run(t.Context())
	}()
	t.Cleanup(func() { <-done })
	<-fetching
	count := func() int {
		return len(slices.DeleteFunc(e.all(), func(s string) bool { return s != "WATCHDOG=1" }))
	}
	for before := count(); count() < before+5; { // during the fetch
		<-signs
	}
	close(fed)
	g.await(t, "the outcome", g.ended(1))
	for before := count(); count() < before+5; { // at rest
		<-signs
	}
	if heard := strings.Join(e.all(), "\n"); !strings.Contains(heard, "STATUS=Fetching revision 1, "+newSystem.String()) || !strings.Contains(heard, "STATUS=Idle at revision 1") {
		t.Errorf("systemd heard:\n%s", heard)
	}
}

// TestSystemdIsToldOverItsSocket speaks the real protocol.
func TestSystemdIsToldOverItsSocket(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	t.Setenv("NOTIFY_SOCKET", socket)
	t.Setenv("WATCHDOG_USEC", "90000000")
	n := newNotifier(clock.RealClock{}, slog.New(slog.DiscardHandler))
	if n.every != 30*time.Second {
		t.Errorf("a sign of life every %s", n.every)
	}
	ctx, cancel := context.WithCancel(t.Context())
	n.ready(ctx)
	n.status("Idle")
	n.status("Idle")
	n.alive()
	cancel()
	for _, want := range []string{"READY=1", "STATUS=Idle", "WATCHDOG=1", "STOPPING=1"} {
		got := make([]byte, 100)
		if err := conn.SetReadDeadline(time.Now().Add(eventually)); err != nil {
			t.Fatal(err)
		}
		size, err := conn.Read(got)
		if err != nil || string(got[:size]) != want {
			t.Errorf("heard %q, %v; want %q", got[:size], err, want)
		}
	}
}
