// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package activation

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nixfleet/nixfleet/internal/attempt"
	"github.com/nixfleet/nixfleet/internal/nix"
)

// scene is what a helper does, in its order.
type scene struct {
	result  Result
	err     error
	armErr  error
	did     []string
	armedIn time.Duration
}

func (s *scene) Test(_ context.Context, sys attempt.System, timeout time.Duration, id string) (Result, error) {
	s.did = append(s.did, "test "+sys.Path.Name()+" "+timeout.String()+" "+id)
	return s.result, s.err
}

func (s *scene) Arm(_ context.Context, _ attempt.Plan, stage Stage, after time.Duration) error {
	s.did = append(s.did, "arm "+string('0'+rune(stage)))
	s.armedIn = after
	return s.armErr
}

func (s *scene) Disarm(_ context.Context, _ attempt.Plan, stage Stage) error {
	s.did = append(s.did, "disarm "+string('0'+rune(stage)))
	return nil
}

func helperPlan(t *testing.T) attempt.Dir {
	t.Helper()
	d, err := attempt.Create(attempt.Plan{
		Number: 3, Nonce: attempt.NewNonce(), Root: "/", StateDir: t.TempDir(), BootID: "boot",
		Target: attempt.System{Path: system}, ActivationTimeoutSeconds: 60, HealthBudgetSeconds: 40, ConfirmTimeoutSeconds: 20, ActivateBy: 5,
	})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestHelper(t *testing.T) {
	run := "test nixos-system-web-01 1m0s 3"
	for name, tc := range map[string]struct {
		scene scene
		did   []string
		after time.Duration
		by    int64
	}{
		"well":         {scene{}, []string{run, "arm 2", "disarm 1", "freshen"}, time.Minute, int64(time.Hour + time.Minute)},
		"units failed": {scene{result: Result{ExitCode: 4}}, []string{run, "arm 2", "disarm 1", "freshen"}, time.Minute, int64(time.Hour + time.Minute)},
		"failed":       {scene{result: Result{ExitCode: 2}}, []string{run, "arm 2", "disarm 1", "freshen"}, failedPatience, int64(time.Hour + failedPatience)},
		"not run":      {scene{err: errors.New("no program")}, []string{run, "arm 2", "disarm 1", "freshen"}, failedPatience, int64(time.Hour + failedPatience)},
	} {
		t.Run(name, func(t *testing.T) {
			d, s := helperPlan(t), &tc.scene
			h := &Helper{
				Switch: s, Timers: s, BootID: "boot", Monotonic: func() (time.Duration, error) { return time.Hour, nil },
				Freshen: func(context.Context, attempt.Plan) error { s.did = append(s.did, "freshen"); return nil },
			}
			got, err := h.Run(t.Context(), d)
			if err != nil || !cmp.Equal(s.did, tc.did) || s.armedIn != tc.after || got.ConfirmBy != tc.by {
				t.Errorf("%v: did %q, armed for %s, until %d; want %q, %s, %d", err, s.did, s.armedIn, got.ConfirmBy, tc.did, tc.after, tc.by)
			}
			kept, err := d.Activation()
			if err != nil || !kept.Ended || kept.ExitCode != got.ExitCode || kept.StartedAt.IsZero() {
				t.Errorf("kept %+v, %v", kept, err)
			}
			s.did = nil
			if _, err := h.Run(t.Context(), d); !errors.Is(err, ErrStarted) || s.did != nil {
				t.Errorf("a second time: %v; did %q", err, s.did)
			}
		})
	}
}

func TestHelperBeginsNothing(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, d attempt.Dir, h *Helper){
		"decided": func(t *testing.T, d attempt.Dir, _ *Helper) {
			if _, err := d.Decide(attempt.Rollback); err != nil {
				t.Fatal(err)
			}
		},
		"another boot": func(_ *testing.T, _ attempt.Dir, h *Helper) { h.BootID = "later" },
	} {
		d, s := helperPlan(t), &scene{}
		h := &Helper{Switch: s, Timers: s, BootID: "boot"}
		spoil(t, d, h)
		if _, err := h.Run(t.Context(), d); err == nil || s.did != nil {
			t.Errorf("%s: %v; did %q", name, err, s.did)
		}
	}
}

// TestHelperIsStopped: whoever stops it knows what comes next, so it leaves nothing that
// looks like an end.
func TestHelperIsStopped(t *testing.T) {
	d, s := helperPlan(t), &scene{}
	ctx, cancel := context.WithCancel(t.Context())
	h := &Helper{Switch: stops{s, cancel}, Timers: s, BootID: "boot"}
	if _, err := h.Run(ctx, d); err == nil {
		t.Error("it ended well")
	}
	if a, err := d.Activation(); err != nil || a.Ended || a.StartedAt.IsZero() || len(s.did) != 1 {
		t.Errorf("kept %+v, %v; did %q", a, err, s.did)
	}
}

type stops struct {
	*scene
	cancel context.CancelFunc
}

func (s stops) Test(ctx context.Context, sys attempt.System, timeout time.Duration, id string) (Result, error) {
	s.cancel()
	return s.scene.Test(ctx, sys, timeout, id)
}

func TestVerdict(t *testing.T) {
	for name, tc := range map[string]struct {
		a    attempt.Activation
		want Judgement
	}{
		"no end":                   {attempt.Activation{}, VerdictFailed},
		"well":                     {attempt.Activation{Ended: true}, VerdictActivated},
		"units":                    {attempt.Activation{Ended: true, ExitCode: 4, Output: "warning: the following units failed: a.service"}, VerdictUnitsFailed},
		"units, and the script":    {attempt.Activation{Ended: true, ExitCode: 4, ScriptFailed: true}, VerdictFailed},
		"script":                   {attempt.Activation{Ended: true, ExitCode: 2}, VerdictFailed},
		"locked":                   {attempt.Activation{Ended: true, ExitCode: 11}, VerdictFailed},
		"init":                     {attempt.Activation{Ended: true, ExitCode: 100}, VerdictFailed},
		"killed":                   {attempt.Activation{Ended: true, ExitCode: -1}, VerdictFailed},
		"out of time":              {attempt.Activation{Ended: true, ExitCode: 0, TimedOut: true}, VerdictFailed},
		"there was nothing to run": {attempt.Activation{Ended: true, Error: "no program"}, VerdictFailed},
	} {
		if got := Verdict(tc.a); got != tc.want {
			t.Errorf("%s: %d, want %d", name, got, tc.want)
		}
	}
}

// TestScriptFailureIsSeen has a long output behind the line that counts.
func TestScriptFailureIsSeen(t *testing.T) {
	for script, want := range map[string]bool{
		`printf 'Failed to run activ'; sleep 0.1; echo 'ate script'; seq 10000; exit 4`: true,
		`echo 'Failed to run something'; seq 10000; exit 4`:                             false,
	} {
		a := host(t, script)
		got, err := a.Test(t.Context(), attempt.System{Path: system}, time.Minute, "1")
		if err != nil || got.ScriptFailed != want || got.ExitCode != 4 {
			t.Errorf("%s: %+v, %v", script, got.ScriptFailed, err)
		}
	}
}

// TestSpecialisation activates a specialisation by its own program.
func TestSpecialisation(t *testing.T) {
	a := host(t, "exit 1")
	child := nix.StorePath("/nix/store/11111111111111111111111111111111-nixos-system-web-01-gnome")
	special(t, a, child, "gnome")
	s := attempt.System{Path: system, Specialisation: "gnome"}
	if got, err := a.Test(t.Context(), s, time.Minute, "1"); err != nil || got.Output != "gnome test" {
		t.Errorf("%+v, %v", got, err)
	}
	s.Specialisation = "none"
	if _, err := a.Test(t.Context(), s, time.Minute, "1"); err == nil {
		t.Error("a specialisation that is not there")
	}
}
