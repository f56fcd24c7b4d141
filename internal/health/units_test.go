// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package health

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nixfleet/nixfleet/internal/nix"
	"github.com/nixfleet/nixfleet/internal/process"
)

const target = nix.StorePath("/nix/store/11111111111111111111111111111111-nixos-system-h-new")

// manager is a systemd whose units depend on the time since it was made.
type manager struct {
	begin  time.Time
	at     func(since time.Duration) UnitSnapshot
	away   time.Duration // how long it does not answer
	asked  int
	ran    []TransientCommand
	output string
	out    process.Outcome
}

var errAway = errors.New("connection refused")

func (m *manager) Snapshot(context.Context) (UnitSnapshot, error) {
	m.asked++
	since := time.Since(m.begin)
	if since < m.away {
		return UnitSnapshot{}, errAway
	}
	return m.at(since), nil
}

func (m *manager) Named(ctx context.Context, names []string) ([]Unit, error) {
	all, err := m.Snapshot(ctx)
	var units []Unit
	for _, u := range all.Units {
		for _, name := range names {
			if u.Name == name {
				units = append(units, u)
			}
		}
	}
	return units, err
}

func (m *manager) Run(_ context.Context, c TransientCommand, w io.Writer) (process.Outcome, error) {
	m.ran = append(m.ran, c)
	_, err := io.WriteString(w, m.output)
	return m.out, err
}

func running(name string, restarts uint32) Unit {
	return Unit{Name: name, Load: "loaded", Active: "active", Sub: "running", Restarts: restarts}
}

func restarting(name string, restarts uint32) Unit {
	return Unit{Name: name, Load: "loaded", Active: "activating", Sub: "auto-restart", Restarts: restarts}
}

func failed(name string) Unit {
	return Unit{Name: name, Load: "loaded", Active: "failed", Sub: "failed", Result: "exit-code"}
}

// systemRoot is a host with a target that has units of these names.
func systemRoot(t *testing.T, units ...string) string {
	t.Helper()
	root := t.TempDir()
	dir := filepath.Join(root, target.String(), "etc/systemd/system")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, unit := range units {
		if err := os.WriteFile(filepath.Join(dir, unit), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/dev/null", filepath.Join(dir, "masked.service")); err != nil {
		t.Fatal(err)
	}
	return root
}

func always(units ...Unit) func(time.Duration) UnitSnapshot {
	return func(time.Duration) UnitSnapshot { return UnitSnapshot{Units: units} }
}

func TestNewlyFailed(t *testing.T) {
	transient := failed("web.service")
	transient.Transient = true
	tests := map[string]struct {
		at     func(since time.Duration) UnitSnapshot
		before []string
		away   time.Duration
		want   string        // part of the message; empty: healthy
		within time.Duration // of the verdict; 0: 10 s
	}{
		"all well":              {at: always(running("web.service", 3))},
		"failed":                {at: always(failed("web.service")), want: "web.service failed (exit-code)"},
		"socket failed":         {at: always(failed("web.socket")), want: "web.socket failed"},
		"instance of template":  {at: always(failed("job@a-b.service")), want: "job@a-b.service failed"},
		"failed before":         {at: always(failed("web.service")), before: []string{"web.service"}},
		"not of the target":     {at: always(failed("other.service"))},
		"masked in the target":  {at: always(failed("masked.service"))},
		"of a user":             {at: always(failed("user@1000.service"), failed("session-1.scope"))},
		"transient":             {at: always(transient)},
		"may fail":              {at: always(failed("backup-home.service"))},
		"systemd away at first": {at: always(running("web.service", 0)), away: 7 * time.Second, within: 20 * time.Second},
		"systemd away for good": {at: always(), away: time.Hour, want: "connection refused"},
		"crash loop": {
			at: func(since time.Duration) UnitSnapshot {
				return UnitSnapshot{Units: []Unit{restarting("web.service", uint32(since/time.Second))}} //nolint:gosec // small
			},
			want: "web.service is activating (auto-restart) and was restarted 40 times", within: 40 * time.Second,
		},
		"crash loop that is never seen waiting": {
			at: func(since time.Duration) UnitSnapshot {
				return UnitSnapshot{Units: []Unit{running("web.service", uint32(since/(5*time.Second)))}} //nolint:gosec // small
			},
			want: "web.service is active (running) and was restarted", within: 20 * time.Second,
		},
		"crash loop that gives up": {
			at: func(since time.Duration) UnitSnapshot {
				if since < 15*time.Second {
					return UnitSnapshot{Units: []Unit{restarting("web.service", uint32(since/time.Second))}} //nolint:gosec // small
				}
				return UnitSnapshot{Units: []Unit{failed("web.service")}}
			},
			want: "web.service failed", within: 30 * time.Second,
		},
		"restarted once and well": {
			at: func(since time.Duration) UnitSnapshot {
				if since < 5*time.Second {
					return UnitSnapshot{Units: []Unit{running("web.service", 0)}}
				}
				return UnitSnapshot{Units: []Unit{running("web.service", 1)}}
			},
			within: 20 * time.Second,
		},
		"comes up while the rest settles": {
			at: func(since time.Duration) UnitSnapshot {
				if since < 20*time.Second {
					return UnitSnapshot{Units: []Unit{restarting("web.service", uint32(since/time.Second))}, Jobs: 1} //nolint:gosec // small
				}
				return UnitSnapshot{Units: []Unit{running("web.service", 20)}}
			},
			within: 31 * time.Second,
		},
		"fails late": {
			at: func(since time.Duration) UnitSnapshot {
				if since < 9*time.Second {
					return UnitSnapshot{Units: []Unit{running("web.service", 0)}}
				}
				return UnitSnapshot{Units: []Unit{failed("web.service")}}
			},
			want: "web.service failed", within: 20 * time.Second,
		},
		"waits long to be restarted": {
			at:   always(restarting("web.service", 7)),
			want: "auto-restart", within: 50 * time.Second,
		},
		"jobs that never end": {
			at:     func(time.Duration) UnitSnapshot { return UnitSnapshot{Jobs: 1} },
			within: 40 * time.Second,
		},
	}
	root := systemRoot(t, "web.service", "web.socket", "job@.service", "user@.service", "session-1.scope", "backup-home.service")
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begin := time.Now()
				p := &Prober{Root: root, Units: &manager{begin: begin, at: tc.at, away: tc.away}, IgnoreFailed: []string{"backup-*.service"}}
				got := p.UntilHealthy(t.Context(), []Check{NewlyFailed(target.String(), Baseline{Troubled: tc.before})})[0]
				if got.Healthy != (tc.want == "") || !strings.Contains(got.Message, tc.want) {
					t.Errorf("got %+v, want %q", got, tc.want)
				}
				within := max(tc.within, sampleApart)
				if took := time.Since(begin); took > within {
					t.Errorf("it took %s, more than %s", took, within)
				}
			})
		})
	}
}

// TestNewlyFailedEnds is within the time that the check says it needs, whatever the units
// do: the dead man's switch counts on it.
func TestNewlyFailedEnds(t *testing.T) {
	root := systemRoot(t, "a.service", "b.service")
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		turn := 0
		p := &Prober{Root: root, Units: &manager{begin: begin, at: func(time.Duration) UnitSnapshot {
			turn++ // one, then the other, never twice the same
			return UnitSnapshot{Units: []Unit{restarting([]string{"a.service", "b.service"}[turn%2], 0)}, Jobs: 1}
		}}}
		check := NewlyFailed(target.String(), Baseline{})
		got := p.UntilHealthy(t.Context(), []Check{check})[0]
		if took := time.Since(begin); got.Healthy || took > check.Timeout {
			t.Errorf("got %+v after %s, want a verdict within %s", got, took, check.Timeout)
		}
	})
}

func TestNewlyFailedStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		p := &Prober{Root: "/", Units: &manager{at: always()}}
		if got := p.UntilHealthy(ctx, []Check{NewlyFailed(target.String(), Baseline{})})[0]; got.Healthy {
			t.Errorf("got %+v", got)
		}
	})
}

func TestBaseline(t *testing.T) {
	p := &Prober{Units: &manager{at: always(failed("b.service"), running("c.service", 9), restarting("a.service", 1))}}
	got, err := p.Baseline(t.Context())
	if want := (&Baseline{Troubled: []string{"a.service", "b.service"}}); err != nil || !cmp.Equal(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
	if got, err := (&Prober{}).Baseline(t.Context()); got != nil || err != nil {
		t.Errorf("without systemd: %+v, %v", got, err)
	}
	p.Units = &manager{begin: time.Now(), away: time.Hour}
	if got, err := p.Baseline(t.Context()); got != nil || !errors.Is(err, errAway) {
		t.Errorf("systemd away: %+v, %v", got, err)
	}
}

func TestSystemdCheck(t *testing.T) {
	reloading := running("b.service", 0)
	reloading.Active = "reloading"
	units := always(running("a.service", 0), reloading, failed("c.service"), Unit{Name: "d.service", Load: "not-found", Active: "inactive", Sub: "dead"})
	for name, tc := range map[string]struct {
		units  []string
		absent bool
		want   string
	}{
		"active":     {units: []string{"a.service", "b.service"}},
		"failed":     {units: []string{"a.service", "c.service"}, want: "c.service failed (exit-code)"},
		"unknown":    {units: []string{"d.service"}, want: "d.service does not exist"},
		"no answer":  {units: []string{"e.service"}, want: "systemd says nothing of e.service"},
		"no systemd": {units: []string{"a.service"}, absent: true, want: "systemd does not run this host"},
	} {
		t.Run(name, func(t *testing.T) {
			p := &Prober{Units: &manager{at: units}}
			if tc.absent {
				p.Units = nil
			}
			got := p.Once(t.Context(), []Check{{Name: "x", Type: "systemd", Systemd: &Systemd{Units: tc.units}}})[0]
			if got.Healthy != (tc.want == "") || !strings.Contains(got.Message, tc.want) {
				t.Errorf("got %+v, want %q", got, tc.want)
			}
		})
	}
}

// TestExecInItsOwnUnit has systemd run the command, under a name of its own and as nobody
// in particular.
func TestExecInItsOwnUnit(t *testing.T) {
	root := t.TempDir()
	program := filepath.Join(root, store, "check")
	if err := os.MkdirAll(filepath.Dir(program), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(program, nil, 0o755); err != nil { //nolint:gosec // a program
		t.Fatal(err)
	}
	m := &manager{output: "first\nlast words\n", out: process.Outcome{ExitCode: 2}}
	check := Check{Name: "my check", Type: "exec", Timeout: 3 * time.Second, Exec: &Exec{Argv: []string{store + "/check", "$HOME"}, User: "postgres"}}
	got := (&Prober{Root: root, Units: m}).Once(t.Context(), []Check{check})[0]
	if got.Healthy || got.Message != "it exited with 2; last words" {
		t.Errorf("got %+v", got)
	}
	want := []TransientCommand{{
		Unit: checkUnit("my check"), Description: "NixFleet: health check my check",
		Program: program, Args: []string{"$HOME"}, User: "postgres", Timeout: 3 * time.Second,
	}}
	if diff := cmp.Diff(want, m.ran); diff != "" {
		t.Error(diff)
	}
	if checkUnit("my check") == checkUnit("my  check") {
		t.Error("two checks share a unit")
	}
	m.out = process.Outcome{ExitCode: -1, TimedOut: true}
	if got := (&Prober{Root: root, Units: m}).Once(t.Context(), []Check{check})[0]; !strings.Contains(got.Message, "did not end within 3s") {
		t.Errorf("got %+v", got)
	}
}

// TestExecIsNotRunAsSomebodyElse refuses, where nothing can change the user.
func TestExecIsNotRunAsSomebodyElse(t *testing.T) {
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, store), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, store, "check"), []byte("#!/bin/sh\n"), 0o755); err != nil { //nolint:gosec // a program
		t.Fatal(err)
	}
	check := Check{Name: "x", Type: "exec", Exec: &Exec{Argv: []string{store + "/check"}, User: "no-such-user"}}
	if got := (&Prober{Root: root}).Once(t.Context(), []Check{check})[0]; got.Healthy || !strings.Contains(got.Message, "wants to run as no-such-user") {
		t.Errorf("got %+v", got)
	}
}
