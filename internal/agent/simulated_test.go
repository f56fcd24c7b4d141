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
	"github.com/nixfleet/nixfleet/internal/attempt"
	"github.com/nixfleet/nixfleet/internal/bootloader"
	"github.com/nixfleet/nixfleet/internal/deadman"
	"github.com/nixfleet/nixfleet/internal/health"
	"github.com/nixfleet/nixfleet/internal/nix"
)

const (
	oldSystem = nix.StorePath("/nix/store/00000000000000000000000000000000-nixos-system-h-old")
	newSystem = nix.StorePath("/nix/store/11111111111111111111111111111111-nixos-system-h-new")
)

var errDiskFull = errors.New("no space left on device")

// killed is what ends a simulated process, powerLost what ends them all.
type (
	killed    struct{}
	powerLost struct{}
)

// fault is what goes wrong at one action of a simulated host.
type fault string

const (
	noFault      fault = ""
	killProcess  fault = "kill"
	losePower    fault = "power loss"
	fireDeadMan  fault = "dead man"
	killInMiddle fault = "kill in the middle"
)

// body is a simulated host. Its state survives the agent; faultAt counts the actions and
// journal writes until something goes wrong, before or after the action. The helper and
// the way back are the real ones, with simulated hands.
type body struct {
	running     nix.StorePath
	profile     nix.ProfileState
	bootDefault nix.StorePath
	bad         map[nix.StorePath]bool
	cut         map[nix.StorePath]bool // systems that cut the network
	replaces    map[nix.StorePath]bool // systems with another agent
	exit        map[nix.StorePath]int
	bootFails   map[nix.StorePath]bool
	bootNoop    map[nix.StorePath]bool // systems whose "boot" ends well and does nothing
	loader      bootloader.Loader      // what is understood of the boot loader; Unknown is nothing
	breaks      map[nix.StorePath]bool // systems that have a unit fail
	broken      []string               // units that have failed
	breaksToo   string                 // another unit that they have fail
	onConfirm   func()
	confirms    int
	probes      int  // health checks that have run
	staysBroken bool // whatever is activated
	policy      nfv1.FailedUnitsPolicy
	drift       nfv1.DriftPolicy
	baselineErr error
	fetchErr    error
	retries     int
	preflight   error
	confirmErr  error
	reachable   bool
	dir         string
	actions     []string
	events      []string
	last        nfv1.HostStatus
	saveErr     error
	failSave    int // the number of the journal write that fails, from 1
	saves       int
	reports     int
	abandoned   []string
	abandonErr  error
	onFetch     func(context.Context) error
	onTest      func()

	// units: helper and way back are processes of their own, and there are timers.
	units   bool
	timers  map[activation.Stage]attempt.Plan
	boot    string
	agentOf nix.StorePath // the system that the agent was started by
	restart bool          // the helper restarts the agent

	fault      fault
	faultAt    int
	faultAfter bool
	killIn     string // kills the agent in the middle of the next action of this kind
	inHelper   bool
	inLadder   bool
	deadMan    bool // fires as soon as it can

	mu    sync.Mutex
	acted chan struct{}
}

func newBody(t *testing.T) *body {
	return &body{
		running: oldSystem, profile: nix.ProfileState{Path: oldSystem, Generation: 1, Newest: 1}, bootDefault: oldSystem,
		bad: map[nix.StorePath]bool{}, cut: map[nix.StorePath]bool{}, replaces: map[nix.StorePath]bool{},
		exit: map[nix.StorePath]int{}, bootFails: map[nix.StorePath]bool{}, loader: bootloader.SystemdBoot, breaks: map[nix.StorePath]bool{}, timers: map[activation.Stage]attempt.Plan{},
		reachable: true, dir: t.TempDir(), faultAt: -1, boot: "boot-1", acted: make(chan struct{}),
	}
}

// act does something that changes the host. Something may go wrong right before or after.
func (b *body) act(name string, f func()) {
	b.faultAt--
	b.strike(!b.faultAfter)
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
	b.strike(b.faultAfter)
}

func (b *body) strike(now bool) {
	if b.faultAt != -1 || !now {
		return
	}
	b.faultAt = -2
	switch b.fault {
	case killProcess:
		panic(killed{})
	case losePower:
		panic(powerLost{})
	case fireDeadMan:
		b.deadMan = true
		if b.inHelper {
			panic(killed{}) // it stops the helper first, see process
		}
		b.fire()
	}
}

// fire lets the timer that was armed last fire. Another ladder that is being climbed
// makes it wait.
func (b *body) fire() {
	if !b.deadMan || b.inLadder || b.inHelper {
		return
	}
	b.deadMan = false
	for _, s := range []activation.Stage{activation.StageConfirm, activation.StageActivation} {
		if p, armed := b.timers[s]; armed {
			delete(b.timers, s)
			trigger := activation.TriggerConfirmTimer
			if s == activation.StageActivation {
				trigger = activation.TriggerActivationTimer
			}
			if _, err := b.ladder(p, trigger); err != nil && !errors.Is(err, deadman.ErrCommitted) && !errors.Is(err, deadman.ErrClosed) {
				panic(err)
			}
			return
		}
	}
}

// process runs what is a process of its own where there are units. It answers false if it
// was killed. Without units it is the agent itself that is.
func (b *body) process(inside *bool, f func()) (ended bool) {
	*inside = true
	defer func() {
		*inside = false
		r := recover()
		if _, dead := r.(killed); r != nil && (!dead || !b.units) {
			panic(r)
		}
		ended = r == nil
		b.fire()
	}()
	f()
	return true
}

func (b *body) reboot() {
	b.running, b.boot = b.bootDefault, b.boot+"+"
	clear(b.timers)
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

// switcher is the program of a system.
type switcher struct{ *body }

func (s switcher) Test(_ context.Context, sys attempt.System, _ time.Duration, _ string) (activation.Result, error) {
	b := s.body
	b.act("test "+sys.Path.Name(), func() {
		if code := b.exit[sys.Path]; code == 0 || code == 4 {
			b.running = sys.Path
		}
		b.broken = nil // it has systemd forget them
		if b.breaks[sys.Path] {
			b.broken = []string{"web.service"}
			if b.breaksToo != "" {
				b.broken = append(b.broken, b.breaksToo)
			}
		}
		if b.onTest != nil {
			b.onTest()
		}
	})
	return activation.Result{ExitCode: b.exit[sys.Path]}, nil
}

func (b *body) TestUnchecked(_ context.Context, sys attempt.System, _ time.Duration, _ string) (activation.Result, error) {
	b.act("back "+sys.Path.Name(), func() {
		if b.exit[sys.Path] == 0 {
			b.running = sys.Path
			if !b.staysBroken {
				b.broken = nil
			}
		}
	})
	return activation.Result{ExitCode: b.exit[sys.Path]}, nil
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

func (b *body) Fetch(ctx context.Context, _ nix.StorePath, _ []nfv1.CacheURL, notes FetchNotes) error {
	for range b.retries {
		notes.Retry(errDiskFull)
	}
	if b.onFetch != nil {
		return b.onFetch(ctx)
	}
	return b.fetchErr
}
func (b *body) Checks(p nix.StorePath) ([]health.Check, error) {
	return []health.Check{{Name: p.Name(), Type: "exec"}}, nil
}
func (b *body) Preflight(context.Context, attempt.System, attempt.System) error {
	b.act("preflight", func() {})
	return b.preflight
}
func (b *body) Has(nix.StorePath, string) bool                 { return false }
func (b *body) Keep(context.Context, nix.StorePath) error      { return nil }
func (b *body) NeedsReboot(_, _ nix.StorePath) []string        { return nil }
func (b *body) Label(p nix.StorePath) string                   { return p.Name() }
func (b *body) Forget(context.Context, ...nix.StorePath) error { return nil }
func (b *body) Report(s nfv1.HostStatus, _ bool)               { b.last, b.reports = s, b.reports+1 }
func (b *body) Amend(s nfv1.HostStatus)                        { b.last = s }
func (b *body) Reachable() bool                                { return b.reachable && !b.cut[b.running] }
func (b *body) Confirm(context.Context, nfv1.HostStatus) error {
	b.confirms++
	if b.cut[b.running] {
		return context.DeadlineExceeded
	}
	if b.onConfirm != nil {
		b.onConfirm()
	}
	return b.confirmErr
}
func (b *body) Event(_, reason, _ string) { b.events = append(b.events, reason) }
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
	b.agentOf, b.boot = b.running, boot
	base := attempt.Plan{Root: b.dir, StateDir: b.dir, Profile: "/profile", Protection: attempt.ProtectionNone}
	if b.units {
		base.Protection = attempt.ProtectionTimers
	}
	host := order1()
	host.Spec.Activation.FailedUnits, host.Spec.Activation.Drift = b.policy, b.drift
	if b.units { // an agent that is not the right one waits for its end, in real time
		host.Spec.Activation.ConfirmTimeoutSeconds = 1
	}
	return &Machine{
		Base:      base,
		Activator: b, Profile: b, Source: b, Prober: b, Reporter: b, Store: b, BootEntry: b.bootEntry,
		Clock: testingclock.NewFakeClock(time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC)), BootID: boot,
		Log: slog.New(slog.DiscardHandler), journal: j, host: host,
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
		switch r := recover(); r.(type) {
		case nil:
			return
		case killed:
		case powerLost:
			b.reboot()
		default:
			panic(r)
		}
		wasKilled = true
	}()
	m := b.start(t, boot)
	if err := m.resume(t.Context()); err != nil {
		return b.tryAgain(t, err)
	}
	if decide(m.journal, m.host) == orderNothing {
		m.dropOpen()
	}
	if running, yes := m.drifted(); yes {
		if err := m.openCorrection(running); err != nil {
			return false
		}
		if err := m.correct(t.Context()); err != nil {
			return b.tryAgain(t, err)
		}
	}
	if decide(m.journal, m.host) == orderMove {
		if err := m.begin(m.host); err != nil {
			m.problem = err.Error()
			m.report(false)
			return false
		}
		if err := m.move(t.Context()); err != nil {
			return b.tryAgain(t, err)
		}
	}
	m.report(false)
	return false
}

// tryAgain: where the way back is a process of its own, its end is no end of the attempt.
func (b *body) tryAgain(t *testing.T, err error) bool {
	t.Helper()
	if !b.units {
		t.Fatal(err)
	}
	return true
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
