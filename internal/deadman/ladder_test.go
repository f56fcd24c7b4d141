// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package deadman

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/utils/clock"

	"github.com/nixfleet/nixfleet/internal/activation"
	"github.com/nixfleet/nixfleet/internal/attempt"
	"github.com/nixfleet/nixfleet/internal/nix"
)

const (
	previous = nix.StorePath("/nix/store/00000000000000000000000000000000-nixos-system-h-old")
	target   = nix.StorePath("/nix/store/11111111111111111111111111111111-nixos-system-h-new")
)

// fake is a host whose steps can fail.
type fake struct {
	mu        sync.Mutex
	running   attempt.System
	exit      int
	fail      map[string]bool
	canReboot bool
	done      []string
}

func (f *fake) note(what string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.done = append(f.done, what)
	if f.fail[what] {
		return errors.New(what + " failed")
	}
	return nil
}

func (f *fake) StopActivation(context.Context) error                   { return f.note("stop") }
func (f *fake) RestoreProfile(context.Context, nix.ProfileState) error { return f.note("profile") }
func (f *fake) Recovered(context.Context) error                        { return f.note("recovered") }
func (f *fake) StartAgent(context.Context) error                       { return f.note("agent") }
func (f *fake) Reboot(context.Context) error                           { return f.note("reboot") }
func (f *fake) CanReboot() bool                                        { return f.canReboot }
func (f *fake) Running() (attempt.System, error)                       { return f.running, nil }

func (f *fake) Boot(context.Context, nix.StorePath, time.Duration) (activation.Result, error) {
	return activation.Result{}, f.note("boot")
}

func (f *fake) Test(_ context.Context, s attempt.System, _ time.Duration) (activation.Result, error) {
	if f.exit == 0 || f.exit == 4 {
		f.running = s
	}
	return activation.Result{ExitCode: f.exit, Output: "said"}, f.note("test")
}

func planned(t *testing.T) attempt.Dir {
	t.Helper()
	d, err := attempt.Create(attempt.Plan{
		Number: 1, Nonce: attempt.NewNonce(), Root: "/", StateDir: t.TempDir(), BootID: "boot",
		Target: attempt.System{Path: target}, Previous: attempt.System{Path: previous, Specialisation: "gnome"},
		PreviousProfile: nix.ProfileState{Path: previous, Generation: 1, Newest: 1},
		Profile:         "/nix/var/nix/profiles/system", HealthBudgetSeconds: 1, ConfirmTimeoutSeconds: 1, Protection: attempt.ProtectionTimers,
	})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func ladder(f *fake, boot string) *Ladder {
	return &Ladder{Host: f, Trigger: "test", BootID: boot, Clock: clock.RealClock{}, Log: slog.New(slog.DiscardHandler)}
}

func TestClimb(t *testing.T) {
	type given struct {
		exit    int
		fail    []string
		touched bool
		boot    string // default: that of the plan
		running nix.StorePath
		fixed   bool // it cannot be rebooted
	}
	tests := map[string]struct {
		given
		want attempt.RollbackOutcome
		done string
	}{
		"well":                         {given{}, attempt.RolledBack, "stop test agent recovered"},
		"units of the old one fail":    {given{exit: 4}, attempt.RolledBack, "stop test agent recovered"},
		"the profile was touched":      {given{touched: true}, attempt.RolledBack, "stop profile boot test agent recovered"},
		"old program fails":            {given{exit: 1}, attempt.Rebooting, "stop test agent reboot"},
		"old program fails, no reboot": {given{exit: 1, fixed: true}, attempt.RollbackFailed, "stop test agent"},
		// That the old system is linked proves nothing while its program has not ended well.
		"fails while it is linked":    {given{exit: 1, running: previous, fixed: true}, attempt.RollbackFailed, "stop test agent"},
		"does not recover":            {given{fail: []string{"recovered"}}, attempt.Rebooting, "stop test agent recovered reboot"},
		"does not recover, fixed":     {given{fail: []string{"recovered"}, fixed: true}, attempt.RolledBack, "stop test agent recovered"},
		"cannot be stopped":           {given{fail: []string{"stop"}}, attempt.Rebooting, "stop agent reboot"},
		"agent does not start":        {given{fail: []string{"agent"}}, attempt.RolledBack, "stop test agent recovered"},
		"after a reboot, all is well": {given{boot: "next", running: previous}, attempt.RolledBack, "stop agent recovered"},
		"after a reboot, not back":    {given{boot: "next"}, attempt.RolledBack, "stop test agent recovered"},
		"no second reboot":            {given{boot: "next", exit: 1}, attempt.RollbackFailed, "stop test agent"},
		// A reboot would lead to the new system.
		"loose end":         {given{touched: true, fail: []string{"boot"}}, attempt.RollbackFailed, "stop profile boot test agent recovered"},
		"loose end, failed": {given{touched: true, exit: 1, fail: []string{"profile"}}, attempt.RollbackFailed, "stop profile test agent"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			d := planned(t)
			f := &fake{exit: tc.exit, fail: map[string]bool{}, canReboot: !tc.fixed, running: attempt.System{Path: target}}
			for _, what := range tc.fail {
				f.fail[what] = true
			}
			if tc.running != "" {
				f.running = attempt.System{Path: tc.running, Specialisation: "gnome"}
			}
			if tc.touched {
				if err := d.TouchProfile(); err != nil {
					t.Fatal(err)
				}
			}
			boot := tc.boot
			if boot == "" {
				boot = "boot"
			}
			record, err := ladder(f, boot).Climb(t.Context(), d)
			if err != nil || record.Outcome != tc.want || strings.Join(f.done, " ") != tc.done {
				t.Errorf("%s %v by %q: %v; want %s by %q", record.Outcome, err, f.done, record.Problems, tc.want, tc.done)
			}
			kept, err := d.Rollback()
			if err != nil || kept.Outcome != tc.want || kept.Trigger != "test" || len(kept.Problems) < len(tc.fail) {
				t.Errorf("kept %+v, %v", kept, err)
			}
			if decision, err := d.Decision(); err != nil || decision != attempt.Rollback {
				t.Errorf("decided %q, %v", decision, err)
			}
		})
	}
}

// TestClimbOnce sees that what one has finished the next one leaves alone, and that many
// at once take turns.
func TestClimbOnce(t *testing.T) {
	d := planned(t)
	f := &fake{running: attempt.System{Path: target}}
	var wg sync.WaitGroup
	for range 5 {
		wg.Go(func() {
			if r, err := ladder(f, "boot").Climb(t.Context(), d); err != nil || r.Outcome != attempt.RolledBack {
				t.Errorf("%+v, %v", r, err)
			}
		})
	}
	wg.Wait()
	if n := len(slices.DeleteFunc(slices.Clone(f.done), func(s string) bool { return s != "test" })); n != 1 {
		t.Errorf("went back %d times: %v", n, f.done)
	}
}

func TestClimbNeverFromACommit(t *testing.T) {
	d := planned(t)
	f := &fake{running: attempt.System{Path: target}, canReboot: true}
	if _, err := d.Decide(attempt.Commit); err != nil {
		t.Fatal(err)
	}
	if _, err := ladder(f, "boot").Climb(t.Context(), d); !errors.Is(err, ErrCommitted) || len(f.done) > 0 {
		t.Errorf("%v; did %v", err, f.done)
	}
	if err := d.Withdraw(); err != nil {
		t.Fatal(err)
	}
	if r, err := ladder(f, "boot").Climb(t.Context(), d); err != nil || r.Outcome != attempt.RolledBack {
		t.Errorf("a commit that was withdrawn: %+v, %v", r, err)
	}
	over := planned(t)
	if err := over.Close(); err != nil {
		t.Fatal(err)
	}
	f.done = nil
	if _, err := ladder(f, "boot").Climb(t.Context(), over); !errors.Is(err, ErrClosed) || len(f.done) > 0 {
		t.Errorf("an attempt that is over: %v; did %v", err, f.done)
	}
}

// TestStepIsBounded has a step hang in a system call that no context ends.
func TestStepIsBounded(t *testing.T) {
	c := &climb{Ladder: ladder(&fake{}, "boot")}
	forever := make(chan struct{})
	defer close(forever)
	ok := c.step(t.Context(), time.Millisecond, "hang", func(context.Context) error { <-forever; return nil })
	if ok || len(c.record.Problems) != 1 || !strings.Contains(c.record.Problems[0], "deadline") {
		t.Errorf("ok %v, problems %v", ok, c.record.Problems)
	}
}
