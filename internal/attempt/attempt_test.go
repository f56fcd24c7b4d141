// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package attempt

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/nixfleet/nixfleet/internal/nix"
)

const (
	previous = nix.StorePath("/nix/store/00000000000000000000000000000000-nixos-system-h-old")
	target   = nix.StorePath("/nix/store/11111111111111111111111111111111-nixos-system-h-new")
)

func plan(stateDir string, number int64) Plan {
	return Plan{
		Number: number, Revision: 7, Nonce: NewNonce(), Root: "/", StateDir: stateDir, BootID: "boot",
		Target: System{Path: target}, Previous: System{Path: previous, Specialisation: "gnome"},
		Profile: "/nix/var/nix/profiles/system", PreviousProfile: nix.ProfileState{Path: previous, Generation: 3, Newest: 4},
		ActivationTimeoutSeconds: 600, HealthBudgetSeconds: 60, ConfirmTimeoutSeconds: 120, ActivateBy: 5,
		Protection: ProtectionTimers, Tools: Tools{Systemctl: "/bin/systemctl", NixEnv: "/bin/nix-env"}, Agent: "/bin/agent",
	}
}

func create(t testing.TB, stateDir string) Dir {
	t.Helper()
	d, err := Create(plan(stateDir, 1))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestPlanIsWrittenOnce(t *testing.T) {
	dir := t.TempDir()
	want := plan(dir, 3)
	d, err := Create(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := At(dir, 3).Plan()
	if err != nil || !cmp.Equal(got, want) {
		t.Fatalf("%v\n%s", err, cmp.Diff(want, got))
	}
	if _, err := Create(want); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second plan: %v", err)
	}
	if n, err := Next(dir, 1); err != nil || n != 4 {
		t.Errorf("the next number is %d, %v", n, err)
	}
	if n, err := Next(dir, 9); err != nil || n != 10 {
		t.Errorf("the next number after a remembered one is %d, %v", n, err)
	}
	if _, err := At(dir, 4).Plan(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a plan that is not there: %v", err)
	}
	if err := os.Rename(d.Path(), At(dir, 8).Path()); err != nil {
		t.Fatal(err)
	}
	if _, err := At(dir, 8).Plan(); err == nil {
		t.Error("the plan of another attempt is taken")
	}
}

// TestPlanOfANewerProgram has fields that this one does not know.
func TestPlanOfANewerProgram(t *testing.T) {
	dir := t.TempDir()
	d := create(t, dir)
	data, err := os.ReadFile(filepath.Join(d.Path(), planName))
	if err != nil {
		t.Fatal(err)
	}
	newer := append([]byte("{\"invented\": {\"later\": true},"), data[1:]...)
	if err := os.WriteFile(filepath.Join(d.Path(), planName), newer, 0o600); err != nil {
		t.Fatal(err)
	}
	if p, err := d.Plan(); err != nil || p.Previous.Path != previous {
		t.Errorf("got %+v, %v", p, err)
	}
}

func TestPlanRefuses(t *testing.T) {
	for name, edit := range map[string]func(*Plan){
		"no nonce":              func(p *Plan) { p.Nonce = "" },
		"no number":             func(p *Plan) { p.Number = 0 },
		"no target":             func(p *Plan) { p.Target = System{} },
		"target out of store":   func(p *Plan) { p.Target.Path = "/tmp/x" },
		"previous with subpath": func(p *Plan) { p.Previous.Path += "/../x" },
		"profile out of store":  func(p *Plan) { p.PreviousProfile.Path = "/etc" },
		"specialisation":        func(p *Plan) { p.Previous.Specialisation = "../../x" },
		"dots":                  func(p *Plan) { p.Target.Specialisation = ".." },
		"relative root":         func(p *Plan) { p.Root = "x" },
		"tool of the PATH":      func(p *Plan) { p.Tools.NixEnv = "nix-env" },
	} {
		p := plan(t.TempDir(), 1)
		edit(&p)
		if _, err := Create(p); err == nil {
			t.Errorf("%s: taken", name)
		}
		if _, err := At(p.StateDir, 1).Plan(); err == nil {
			t.Errorf("%s: there is a plan", name)
		}
	}
}

func TestRecords(t *testing.T) {
	dir := t.TempDir()
	d := create(t, dir)
	if a, err := d.Activation(); err != nil || a != (Activation{}) {
		t.Errorf("before: %+v, %v", a, err)
	}
	want := Activation{BootID: "b", StartedAt: time.Unix(1, 0).UTC(), Ended: true, ExitCode: 4, Output: "x", ConfirmBy: 9}
	if err := d.SaveActivation(want); err != nil {
		t.Fatal(err)
	}
	if a, err := d.Activation(); err != nil || a != want {
		t.Errorf("got %+v, %v", a, err)
	}
	back := RollbackRecord{Trigger: "agent", Outcome: Rebooting, Problems: []string{"x"}}
	if err := d.SaveRollback(back); err != nil {
		t.Fatal(err)
	}
	if r, err := d.Rollback(); err != nil || !cmp.Equal(r, back) {
		t.Errorf("got %+v, %v", r, err)
	}
	for n, want := range []bool{true, false, false} {
		if first, err := d.Reboot(); err != nil || first != want {
			t.Errorf("reboot %d: %v, %v", n, first, err)
		}
	}
	if touched, err := d.ProfileTouched(); err != nil || touched {
		t.Errorf("touched %v, %v", touched, err)
	}
	if err := errors.Join(d.TouchProfile(), d.Close()); err != nil {
		t.Fatal(err)
	}
	touched, err := d.ProfileTouched()
	closed, cerr := d.Closed()
	if err != nil || cerr != nil || !touched || !closed {
		t.Errorf("touched %v %v, closed %v %v", touched, err, closed, cerr)
	}
}

func TestPruneKeepsTheNewest(t *testing.T) {
	dir := t.TempDir()
	for n := range int64(12) {
		if _, err := Create(plan(dir, n+1)); err != nil {
			t.Fatal(err)
		}
	}
	if err := Prune(dir, 3); err != nil {
		t.Fatal(err)
	}
	if numbers, err := Numbers(dir); err != nil || !cmp.Equal(numbers, []int64{10, 11, 12}) {
		t.Errorf("left: %v, %v", numbers, err)
	}
}

// TestDecisionsRace lets many processes decide at once: one value wins, and every one of
// them is told which.
func TestDecisionsRace(t *testing.T) {
	for range 50 {
		dir := t.TempDir()
		create(t, dir)
		answers := make(chan Decision, 16)
		var wg sync.WaitGroup
		for n := range cap(answers) {
			wg.Go(func() {
				v, err := At(dir, 1).Decide([]Decision{Commit, Rollback}[n%2])
				if err != nil {
					t.Error(err)
				}
				answers <- v
			})
		}
		wg.Wait()
		close(answers)
		first := <-answers
		for v := range answers {
			if v != first || v == Undecided {
				t.Fatalf("one was told %q, another %q", first, v)
			}
		}
		if v, err := At(dir, 1).Decision(); err != nil || v != first {
			t.Fatalf("the decision is %q, %v; all were told %q", v, err, first)
		}
	}
}

// TestOneDecisionWhateverTheOrder has agent and dead man decide, die between any two
// system calls, start again and read, in any order. Whoever acts has the same decision to
// act on, for ever.
func TestOneDecisionWhateverTheOrder(t *testing.T) {
	temp := t.TempDir
	rapid.Check(t, func(t *rapid.T) {
		dir := temp()
		d := create2(t, dir)
		held := Undecided
		agree := func(v Decision) {
			if v == Undecided {
				return
			}
			if held != Undecided && held != v {
				t.Fatalf("decided %q after %q", v, held)
			}
			held = v
		}
		withdrawn := false
		t.Repeat(map[string]func(*rapid.T){
			"decide": func(t *rapid.T) {
				v, err := d.Decide(rapid.SampledFrom([]Decision{Commit, Rollback}).Draw(t, "value"))
				if err != nil || v == Undecided {
					t.Fatalf("decided %q, %v", v, err)
				}
				agree(v)
			},
			"die behind the link": func(t *rapid.T) {
				v := rapid.SampledFrom([]Decision{Commit, Rollback}).Draw(t, "value")
				if os.Link(d.proposal(v), filepath.Join(d.path, decisionName)) == nil {
					agree(v)
				}
			},
			"plan again": func(t *rapid.T) {
				if _, err := Create(plan(dir, 1)); !errors.Is(err, fs.ErrExist) {
					t.Fatalf("a second plan: %v", err)
				}
			},
			"withdraw": func(t *rapid.T) {
				if held == Commit {
					withdrawn = true
					if err := d.Withdraw(); err != nil {
						t.Fatal(err)
					}
				}
			},
			"": func(t *rapid.T) {
				v, err := d.Decision()
				if err != nil || v != held {
					t.Fatalf("the decision is %q, %v; want %q", v, err, held)
				}
				may, err := d.MayRollBack()
				if want := held == Rollback || held == Commit && withdrawn; err != nil || may != want {
					t.Fatalf("may roll back: %v, %v; want %v", may, err, want)
				}
			},
		})
	})
}

func create2(t *rapid.T, dir string) Dir {
	d, err := Create(plan(dir, 1))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestLockIsExclusive(t *testing.T) {
	dir := t.TempDir()
	release, err := Lock(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := Lock(ctx, dir); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("a second lock: %v", err)
	}
	got := make(chan error)
	go func() {
		again, err := Lock(t.Context(), dir)
		if err == nil {
			again()
		}
		got <- err
	}()
	release()
	if err := <-got; err != nil {
		t.Error(err)
	}
}
