// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
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

func TestMoves(t *testing.T) {
	tests := map[string]struct {
		prepare func(*body)
		outcome nfv1.AttemptOutcome
		reason  string
	}{
		"healthy":             {func(*body) {}, nfv1.AttemptSucceeded, nfv1.ReasonCompleted},
		"already running":     {func(b *body) { b.running, b.profile.Path = newSystem, newSystem }, nfv1.AttemptSucceeded, nfv1.ReasonAlreadyRunning},
		"runs, not committed": {func(b *body) { b.running = newSystem }, nfv1.AttemptSucceeded, nfv1.ReasonCompleted},
		"unhealthy":           {func(b *body) { b.bad[newSystem] = true }, nfv1.AttemptRolledBack, nfv1.ReasonHealthCheckFailed},
		"activation fails":    {func(b *body) { b.exit[newSystem] = 4 }, nfv1.AttemptRolledBack, nfv1.ReasonActivationFailed},
		"boot entry fails":    {func(b *body) { b.bootFails[newSystem] = true }, nfv1.AttemptRolledBack, nfv1.ReasonCommitFailed},
		"untrusted": {func(b *body) {
			b.fetchErr = &Refusal{Reason: nfv1.ReasonUntrustedSignature, Err: errors.New("no trusted signature")}
		}, nfv1.AttemptRefused, nfv1.ReasonUntrustedSignature},
		"cache down":       {func(b *body) { b.fetchErr = errors.New("connection refused") }, nfv1.AttemptFailed, nfv1.ReasonFetchFailed},
		"cannot report":    {func(b *body) { b.confirmErr = context.DeadlineExceeded }, nfv1.AttemptRolledBack, nfv1.ReasonConfirmTimeout},
		"could not before": {func(b *body) { b.confirmErr, b.reachable = context.DeadlineExceeded, false }, nfv1.AttemptSucceeded, nfv1.ReasonCompleted},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			b := newBody(t)
			tc.prepare(b)
			b.live(t, "boot-1")
			b.wantEnd(t, tc.outcome, tc.reason)
			actions := len(b.actions)
			b.live(t, "boot-1")
			if len(b.actions) != actions {
				t.Fatalf("the same revision is carried out twice: %v", b.actions[actions:])
			}
			for _, kind := range []string{nfv1.ConditionReconciling} {
				if meta.IsStatusConditionTrue(b.last.Conditions, kind) {
					t.Fatalf("%s stays True at the end", kind)
				}
			}
			if ready := meta.IsStatusConditionTrue(b.last.Conditions, nfv1.ConditionReady); ready != (tc.outcome == nfv1.AttemptSucceeded) {
				t.Fatalf("Ready is %v after %s", ready, tc.outcome)
			}
		})
	}
}

// TestKilledAnywhere kills the agent before and after every action and journal write of
// a move, in good and in bad cases, with and without a reboot, and starts it again: the
// host ends committed or back on what ran before, and says so.
func TestKilledAnywhere(t *testing.T) {
	cases := map[string]func(*body){
		"healthy":   func(*body) {},
		"unhealthy": func(b *body) { b.bad[newSystem] = true },
		"no boot":   func(b *body) { b.bootFails[newSystem] = true },
		"exit 4":    func(b *body) { b.exit[newSystem] = 4 },
	}
	for name, prepare := range cases {
		for _, after := range []bool{false, true} {
			for _, reboot := range []bool{false, true} {
				for at := 0; ; at++ {
					b := newBody(t)
					prepare(b)
					b.killAt, b.killAfter = at, after
					if !b.live(t, "boot-1") {
						break
					}
					boot := "boot-1"
					if reboot { // the machine comes up with what the profile names
						boot, b.running = "boot-2", b.profile.Path
					}
					b.killAt = -1
					b.live(t, boot)
					id := fmt.Sprintf("%s, killed at %d (after: %v, reboot: %v)", name, at, after, reboot)
					if b.last.Attempt == nil || b.last.Attempt.Outcome == "" || b.last.Phase != nfv1.HostPhaseIdle {
						t.Fatalf("%s: no end: %+v; actions %v", id, b.last.Attempt, b.actions)
					}
					want := oldSystem
					if b.last.Attempt.Outcome == nfv1.AttemptSucceeded {
						want = newSystem
					}
					if b.running != want || b.profile.Path != want {
						t.Fatalf("%s: says %s, but %s runs and the profile names %s; actions %v", id, b.last.Attempt.Outcome, b.running, b.profile.Path, b.actions)
					}
					if want == newSystem && name != "healthy" {
						t.Fatalf("%s: ended on a bad system", id)
					}
					if want == oldSystem && name == "healthy" && !reboot {
						t.Fatalf("%s: the end of the agent was taken for the system's fault: %+v", id, b.last.Attempt)
					}
				}
			}
		}
	}
}

func TestJournalCannotBeWritten(t *testing.T) {
	b := newBody(t)
	b.saveErr = errors.New("no space left on device")
	b.live(t, "boot-1")
	if b.running != oldSystem || b.profile.Path != oldSystem {
		t.Fatalf("the host was changed without a journal: %v", b.actions)
	}
	if c := meta.FindStatusCondition(b.last.Conditions, nfv1.ConditionStalled); c == nil || c.Message != "no space left on device" {
		t.Fatalf("the condition does not say why: %+v", c)
	}
}

func TestTruncatedJournalIsPutAside(t *testing.T) {
	b := newBody(t)
	b.live(t, "boot-1")
	whole, err := os.ReadFile(filepath.Join(b.dir, journalName))
	if err != nil {
		t.Fatal(err)
	}
	for n := range len(whole) - 1 {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, journalName), whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		f := NewJournalFile(dir, time.Now)
		_, err := f.Load()
		var corruptErr *CorruptJournalError
		if !errors.As(err, &corruptErr) {
			t.Fatalf("cut to %d bytes: error %v", n, err)
		}
		if kept, err := os.ReadFile(corruptErr.Kept); err != nil || string(kept) != string(whole[:n]) {
			t.Fatalf("cut to %d bytes: what was there is not kept: %v", n, err)
		}
		if j, err := f.Load(); err != nil || j.Last != nil {
			t.Fatalf("cut to %d bytes: the next start: %v", n, err)
		}
	}
}

func TestDecide(t *testing.T) {
	done := Journal{HostUID: "uid", ObservedRevision: 5, Last: &nfv1.HostAttempt{Revision: 5}}
	tests := map[string]struct {
		j      Journal
		mutate func(*nfv1.Host)
		want   order
	}{
		"nothing asked":                  {done, func(h *nfv1.Host) { h.Spec.Desired = nil }, orderNothing},
		"done":                           {done, func(h *nfv1.Host) { h.Spec.Desired.Revision = 5 }, orderNothing},
		"higher":                         {done, func(h *nfv1.Host) { h.Spec.Desired.Revision = 6 }, orderMove},
		"lower, from a restored backup":  {done, func(h *nfv1.Host) { h.Spec.Desired.Revision = 4 }, orderNothing},
		"lower, of another Host":         {done, func(h *nfv1.Host) { h.UID, h.Spec.Desired.Revision = "other", 1 }, orderMove},
		"taken up and not ended":         {Journal{HostUID: "uid", ObservedRevision: 5}, func(h *nfv1.Host) { h.Spec.Desired.Revision = 5 }, orderMove},
		"withdrawn":                      {done, func(h *nfv1.Host) { h.Spec.Desired.Revision, h.Spec.Desired.Intent = 6, nfv1.IntentNone }, orderAcknowledge},
		"maintenance":                    {done, func(h *nfv1.Host) { h.Spec.Desired.Revision, h.Spec.Lifecycle = 6, nfv1.LifecycleMaintenance }, orderNothing},
		"revert is an order like others": {done, func(h *nfv1.Host) { h.Spec.Desired.Revision, h.Spec.Desired.Intent = 6, nfv1.IntentRevert }, orderMove},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			h := order1()
			tc.mutate(h)
			if got := decide(tc.j, h); got != tc.want {
				t.Fatalf("decided %d, want %d", got, tc.want)
			}
		})
	}
}

func TestConfig(t *testing.T) {
	const good = "server: https://fleet.example.org:8443\ncaFile: /ca.pem\nhostName: web-01\ntrustedPublicKeys: [\"k-1:sglB1S9VqHHsZ9c4m3mBn3nYRNmmn5JL0kl6rm2aEGQ=\"]\n"
	if _, err := parseConfig([]byte(good), func(*Config) {}); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"unknown key":     good + "trustedPublicKey: x\n",
		"no trusted keys": "server: https://a:1\ncaFile: /ca.pem\nhostName: web-01\n",
		"plain http":      "server: http://a:1\ncaFile: /ca.pem\nhostName: web-01\ntrustedPublicKeys: [\"k-1:sglB1S9VqHHsZ9c4m3mBn3nYRNmmn5JL0kl6rm2aEGQ=\"]\n",
		"bad name":        good + "namespace: A B\n",
	} {
		if _, err := parseConfig([]byte(text), func(*Config) {}); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}
