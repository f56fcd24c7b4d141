// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package deadman

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/nixfleet/nixfleet/internal/attempt"
	"github.com/nixfleet/nixfleet/internal/health"
	"github.com/nixfleet/nixfleet/internal/process"
)

// units is a systemd whose web.service has failed until it is started.
type units struct{ started string }

func (u units) Snapshot(context.Context) (health.UnitSnapshot, error) {
	web := health.Unit{Name: "web.service", Load: "loaded", Active: "failed", Sub: "failed", Result: "exit-code"}
	if said, err := os.ReadFile(u.started); err == nil && strings.Contains(string(said), "start --no-block -- web.service") {
		web = health.Unit{Name: "web.service", Load: "loaded", Active: "active", Sub: "running"}
	}
	return health.UnitSnapshot{Units: []health.Unit{web}}, nil
}

func (u units) Named(context.Context, []string) ([]health.Unit, error) { return nil, nil }

func (u units) Run(context.Context, health.TransientCommand, io.Writer) (process.Outcome, error) {
	return process.Outcome{}, nil
}

// TestUnitsHaveToBeWellAgain looks at the units after going back: one that was well before
// is started again, and if that does not help the host has not recovered.
func TestUnitsHaveToBeWellAgain(t *testing.T) {
	for name, tc := range map[string]struct {
		baseline attempt.Baseline
		mends    bool
		want     string // part of the error
		starts   bool
	}{
		"started again":        {baseline: attempt.Baseline{UnitsChecked: true}, mends: true, starts: true},
		"cannot be started":    {baseline: attempt.Baseline{UnitsChecked: true}, want: "web.service failed", starts: true},
		"had failed before":    {baseline: attempt.Baseline{UnitsChecked: true, FailedUnits: []string{"web.service"}}},
		"may fail":             {baseline: attempt.Baseline{UnitsChecked: true, IgnoreFailedUnits: []string{"web.*"}}},
		"nobody looked before": {},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			etc := filepath.Join(root, previous.String(), "etc/systemd/system")
			if err := os.MkdirAll(etc, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(etc, "web.service"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			said := filepath.Join(root, "said")
			systemctl := filepath.Join(root, "systemctl")
			if err := os.WriteFile(systemctl, []byte("#!/bin/sh\necho \"$@\" >>"+said+"\n"), 0o755); err != nil { //nolint:gosec // a program
				t.Fatal(err)
			}
			u := units{}
			if tc.mends {
				u.started = said
			}
			p := attempt.Plan{
				Number: 1, Root: root, Protection: attempt.ProtectionTimers, Tools: attempt.Tools{Systemctl: systemctl},
				Previous: attempt.System{Path: previous}, Baseline: tc.baseline,
			}
			synctest.Test(t, func(t *testing.T) {
				m := NewMachine(p)
				m.units = u
				err := m.Recovered(t.Context())
				if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
					t.Errorf("got %v, want %q", err, tc.want)
				}
			})
			commands, err := os.ReadFile(said)
			if starts := err == nil && strings.Contains(string(commands), "start --no-block -- web.service"); starts != tc.starts {
				t.Errorf("systemctl was told %q", commands)
			}
		})
	}
}
