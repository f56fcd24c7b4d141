// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

//go:build systemd

package activation

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// These tests run transient units, on a machine that systemd runs: see
// hack/test-systemd.sh.

func systemdForTest(t *testing.T) Runner {
	t.Helper()
	r := NewRunner("/")
	if _, ok := r.(*systemdRunner); !ok {
		t.Fatalf("the runner is %T: systemd does not run this machine", r)
	}
	return r
}

func script(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(file, []byte("#!/bin/sh\n"+text), 0o700); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestSystemdRunner(t *testing.T) {
	tests := map[string]struct {
		text    string
		timeout time.Duration
		code    int
		timed   bool
		output  string
	}{
		"ends well":       {text: "echo done; exit 0", timeout: time.Minute, output: "done"},
		"fails":           {text: "echo broken >&2; exit 4", timeout: time.Minute, code: 4, output: "broken"},
		"reloads systemd": {text: "systemctl daemon-reexec; systemctl daemon-reload; echo again", timeout: time.Minute, output: "again"},
		"hangs":           {text: "echo begun; trap '' TERM; sleep 600 & wait; sleep 600", timeout: 3 * time.Second, code: -1, timed: true, output: "begun"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			unit := "nixfleet-test-" + strings.ReplaceAll(name, " ", "-") + ".service"
			log := filepath.Join(t.TempDir(), "log")
			// Twice: what the first run leaves must not be in the way of the second.
			for range 2 {
				got, err := systemdForTest(t).Run(t.Context(), Command{Program: script(t, tc.text), Timeout: tc.timeout, Log: log, Unit: unit})
				if err != nil {
					t.Fatal(err)
				}
				if got.ExitCode != tc.code && !tc.timed || got.TimedOut != tc.timed || !strings.Contains(got.Output, tc.output) {
					t.Fatalf("got %+v, want exit code %d, timed out %v, output %q", got, tc.code, tc.timed, tc.output)
				}
			}
			if out, err := exec.Command("systemctl", "is-active", unit).Output(); err == nil {
				t.Fatalf("the unit is still %s", out)
			}
		})
	}
}

func TestSystemdUnitOutlivesItsRunner(t *testing.T) {
	const unit = "nixfleet-test-outlives.service"
	done := filepath.Join(t.TempDir(), "done")
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	_, err := systemdForTest(t).Run(ctx, Command{Program: script(t, "sleep 5; touch "+done+"; sleep 600"), Timeout: time.Minute, Unit: unit})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v", err)
	}
	for range 600 {
		if _, err := os.Stat(done); err == nil {
			break
		}
		time.Sleep(100 * time.Millisecond) //nolint:forbidigo // a file of another process is waited for
	}
	if _, err := os.Stat(done); err != nil {
		t.Fatalf("the unit ended with its runner: %v", err)
	}
	if err := systemdForTest(t).Stop(t.Context(), unit); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("systemctl", "is-active", unit).Output(); err == nil {
		t.Fatalf("the unit is still %s after Stop", out)
	}
}
