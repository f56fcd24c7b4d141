// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package agent

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	testingclock "k8s.io/utils/clock/testing"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/activation"
	"github.com/nixfleet/nixfleet/internal/health"
	"github.com/nixfleet/nixfleet/internal/nix"
)

const (
	oldSystem = nix.StorePath("/nix/store/00000000000000000000000000000000-nixos-system-h-old")
	newSystem = nix.StorePath("/nix/store/11111111111111111111111111111111-nixos-system-h-new")
)

var errDiskFull = errors.New("no space left on device")

// killed is what a simulated power switch panics with.
type killed struct{}

// body is a simulated host. Its state survives the agent; killAt counts the actions and
// journal writes until the agent is killed, before or after the action.
type body struct {
	running    nix.StorePath
	profile    nix.ProfileState
	bad        map[nix.StorePath]bool
	exit       map[nix.StorePath]int
	bootFails  map[nix.StorePath]bool
	fetchErr   error
	confirmErr error
	reachable  bool
	dir        string
	actions    []string
	events     []string
	last       nfv1.HostStatus
	killAt     int
	killAfter  bool
	killIn     string // kills the agent in the middle of the next action of this kind
	saveErr    error
	failSave   int // the number of the journal write that fails, from 1
	saves      int
	reports    int
	abandoned  []string
	abandonErr error
	onFetch    func(context.Context) error
	onTest     func()

	mu    sync.Mutex
	acted chan struct{}
}

func newBody(t *testing.T) *body {
	return &body{
		running: oldSystem, profile: nix.ProfileState{Path: oldSystem, Generation: 1, Newest: 1},
		bad: map[nix.StorePath]bool{}, exit: map[nix.StorePath]int{}, bootFails: map[nix.StorePath]bool{},
		reachable: true, dir: t.TempDir(), killAt: -1, acted: make(chan struct{}),
	}
}

// act does something that changes the host, unless the agent is killed right before;
// it may be killed right after.
func (b *body) act(name string, f func()) {
	b.killAt--
	if b.killAt == -1 && !b.killAfter {
		panic(killed{})
	}
	b.mu.Lock()
	b.actions = append(b.actions, name)
	close(b.acted)
	b.acted = make(chan struct{})
	b.mu.Unlock()
	if kind, _, _ := strings.Cut(name, " "); b.killIn != "" && kind == b.killIn {
		b.killIn = ""
		panic(killed{})
	}
	f()
	if b.killAt == -1 && b.killAfter {
		panic(killed{})
	}
}

// awaitAction waits until the agent has done something of this kind.
func (b *body) awaitAction(t *testing.T, kind string) {
	t.Helper()
	over := time.NewTimer(30 * time.Second)
	defer over.Stop()
	for {
		b.mu.Lock()
		actions, acted := strings.Join(b.actions, "\n"), b.acted
		b.mu.Unlock()
		if strings.Contains("\n"+actions, "\n"+kind+" ") {
			return
		}
		select {
		case <-acted:
		case <-over.C:
			t.Fatalf("nothing of kind %s: %s", kind, actions)
		}
	}
}

func (b *body) Test(_ context.Context, p nix.StorePath, _ time.Duration, _ string) (activation.Result, error) {
	b.act("test "+p.Name(), func() {
		if b.exit[p] == 0 {
			b.running = p
		}
		if b.onTest != nil {
			b.onTest()
		}
	})
	return activation.Result{ExitCode: b.exit[p]}, nil
}

func (b *body) TestUnchecked(_ context.Context, p nix.StorePath, _ time.Duration, _ string) (activation.Result, error) {
	b.act("back "+p.Name(), func() {
		if b.exit[p] == 0 {
			b.running = p
		}
	})
	return activation.Result{ExitCode: b.exit[p]}, nil
}

func (b *body) Boot(_ context.Context, p nix.StorePath, _ time.Duration, _ string) (activation.Result, error) {
	b.act("boot "+p.Name(), func() {})
	if b.bootFails[p] {
		return activation.Result{ExitCode: 1}, nil
	}
	return activation.Result{}, nil
}

func (b *body) Abandon(_ context.Context, kind activation.Kind, id string) error {
	if b.abandonErr != nil {
		return b.abandonErr
	}
	b.abandoned = append(b.abandoned, string(kind)+"-"+id)
	return nil
}

func (b *body) Running() (nix.StorePath, string, error) { return b.running, "", nil }
func (b *body) Booted() (nix.StorePath, error)          { return oldSystem, nil }

func (b *body) Current(context.Context) (nix.StorePath, int64, error) {
	return b.profile.Path, b.profile.Generation, nil
}

func (b *body) State(context.Context) (nix.ProfileState, error) { return b.profile, nil }

func (b *body) Set(_ context.Context, p nix.StorePath) error {
	b.act("set "+p.Name(), func() {
		if b.profile.Path != p {
			b.profile = nix.ProfileState{Path: p, Generation: b.profile.Newest + 1, Newest: b.profile.Newest + 1}
		}
	})
	return nil
}

func (b *body) Restore(_ context.Context, s nix.ProfileState) error {
	b.act("restore", func() { b.profile = s })
	return nil
}

func (b *body) Fetch(ctx context.Context, _ nix.StorePath, _ []nfv1.CacheURL, _ FetchNotes) error {
	if b.onFetch != nil {
		return b.onFetch(ctx)
	}
	return b.fetchErr
}
func (b *body) Checks(p nix.StorePath) ([]health.Check, error) {
	return []health.Check{{Name: p.Name(), Type: "exec"}}, nil
}
func (b *body) Keep(context.Context, nix.StorePath) error      { return nil }
func (b *body) NeedsReboot(_, _ nix.StorePath) []string        { return nil }
func (b *body) Label(p nix.StorePath) string                   { return p.Name() }
func (b *body) Forget(context.Context, ...nix.StorePath) error { return nil }
func (b *body) Report(s nfv1.HostStatus, _ bool)               { b.last, b.reports = s, b.reports+1 }
func (b *body) Confirm(context.Context, nfv1.HostStatus) error { return b.confirmErr }
func (b *body) Reachable() bool                                { return b.reachable }
func (b *body) Event(_, reason, _ string)                      { b.events = append(b.events, reason) }
func (b *body) Once(ctx context.Context, c []health.Check) []health.Result {
	return b.UntilHealthy(ctx, c)
}

func (b *body) UntilHealthy(_ context.Context, checks []health.Check) []health.Result {
	var out []health.Result
	for _, c := range checks {
		out = append(out, health.Result{Name: "web", Healthy: !b.bad[b.running], Message: "connection refused by " + c.Name})
	}
	return out
}

func (b *body) Save(j Journal) error {
	var err error
	b.act("journal", func() {
		b.saves++
		if err = b.saveErr; b.saves == b.failSave {
			err = errDiskFull
		}
		if err == nil {
			err = NewJournalFile(b.dir, time.Now).Save(j)
		}
	})
	return err
}

// start is a new agent process on the host.
func (b *body) start(t *testing.T, boot string) *Machine {
	t.Helper()
	j, err := NewJournalFile(b.dir, time.Now).Load()
	if err != nil {
		t.Fatal(err)
	}
	return &Machine{
		Activator: b, Profile: b, Source: b, Prober: b, Reporter: b, Store: b,
		Clock: testingclock.NewFakeClock(time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC)), BootID: boot,
		Log: slog.New(slog.DiscardHandler), journal: j, host: order1(),
	}
}

func order1() *nfv1.Host {
	return &nfv1.Host{
		ObjectMeta: metav1.ObjectMeta{Name: "h", Namespace: "fleet", UID: "uid", Generation: 2},
		Spec: nfv1.HostSpec{
			Activation: nfv1.ActivationPolicy{ConfirmTimeoutSeconds: 120, ActivationTimeoutSeconds: 600},
			Desired: &nfv1.Desired{
				Revision: 1, Intent: nfv1.IntentDeploy, StorePath: nfv1.StorePath(newSystem),
				Rollout: &nfv1.ObjectReference{Name: "r", UID: "rollout"},
			},
		},
	}
}

// live runs the agent as its loop does, until there is nothing to do or it is killed.
func (b *body) live(t *testing.T, boot string) (wasKilled bool) {
	t.Helper()
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(killed); !ok {
				panic(r)
			}
			wasKilled = true
		}
	}()
	m := b.start(t, boot)
	if err := m.resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	if decide(m.journal, m.host) == orderMove {
		if err := m.begin(m.host); err != nil {
			m.problem = err.Error()
			m.report(false)
			return false
		}
		if err := m.move(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	m.report(false)
	return false
}

func (b *body) wantEnd(t *testing.T, outcome nfv1.AttemptOutcome, reason string) {
	t.Helper()
	want := oldSystem
	if outcome == nfv1.AttemptSucceeded {
		want = newSystem
	}
	a := b.last.Attempt
	if a == nil || a.Outcome != outcome || reason != "" && a.Reason != reason {
		t.Fatalf("attempt %+v, want %s %s; actions %v", a, outcome, reason, b.actions)
	}
	if b.running != want || b.profile.Path != want {
		t.Fatalf("%s runs and the profile names %s, want %s; actions %v", b.running, b.profile.Path, want, b.actions)
	}
}
