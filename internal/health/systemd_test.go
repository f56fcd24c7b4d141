// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

//go:build systemd

package health

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nixfleet/nixfleet/internal/process"
)

// These tests ask the systemd that runs the machine: see hack/test-systemd.sh.

func systemdForTest(t *testing.T) UnitManager {
	t.Helper()
	m := NewUnitManager("/")
	if m == nil {
		t.Fatal("systemd does not run this machine")
	}
	return m
}

func systemctl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "systemctl", args...).CombinedOutput()
	if err != nil {
		t.Logf("systemctl %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// unitFile is a service of the machine until the end of the test.
func unitFile(t *testing.T, name, service string) {
	t.Helper()
	file := filepath.Join("/etc/systemd/system", name)
	if err := os.WriteFile(file, []byte("[Service]\n"+service), 0o600); err != nil {
		t.Fatal(err)
	}
	systemctl(t, "daemon-reload")
	t.Cleanup(func() {
		systemctlClean("stop", name)
		_ = os.Remove(file)
		systemctlClean("daemon-reload")
		systemctlClean("reset-failed")
	})
}

func systemctlClean(args ...string) { _ = exec.Command("systemctl", args...).Run() }

func TestSystemdExec(t *testing.T) {
	marker := filepath.Join(t.TempDir(), "marker")
	tests := map[string]struct {
		script string
		user   string
		want   process.Outcome
		output string
	}{
		"ends well":        {script: "echo done", output: "done"},
		"fails":            {script: "echo broken >&2; exit 3", want: process.Outcome{ExitCode: 3}, output: "broken"},
		"killed":           {script: "kill -9 $$", want: process.Outcome{ExitCode: -1}},
		"hangs":            {script: "trap '' TERM; echo begun; sleep 600 & wait; sleep 600", want: process.Outcome{ExitCode: -1, TimedOut: true}, output: "begun"},
		"leaves a child":   {script: "sleep 601 & echo left", output: "left"},
		"nobody":           {script: "test $(id -u) -ge 61184 && echo nobody; touch " + marker + " 2>/dev/null || echo cannot write", output: "nobody\ncannot write"},
		"root":             {script: "id -u", user: "root", output: "0"},
		"nothing expanded": {script: `echo "$1"`, output: "$HOME ${PATH} %n a b"},
		"much output":      {script: "i=0; while test $i -lt 20000; do echo 0123456789; i=$((i+1)); done; echo end", output: "end"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			// Twice: what a run leaves must not be in the way of the next.
			for range 2 {
				capture := process.NewCapture(1<<10, nil, 0)
				got, err := systemdForTest(t).Run(t.Context(), TransientCommand{
					Unit: "nixfleet-check-test.service", Description: "test", Program: "/bin/sh",
					Args: []string{"-c", tc.script, "sh", "$HOME ${PATH} %n a b"}, User: tc.user, Timeout: 3 * time.Second,
				}, capture)
				if err != nil || got != tc.want || !strings.HasSuffix(capture.Tail(), tc.output) {
					t.Fatalf("got %+v, %v, output %q; want %+v, %q", got, err, capture.Tail(), tc.want, tc.output)
				}
				if out := systemctl(t, "show", "-P", "LoadState", "nixfleet-check-test.service"); out != "not-found" {
					t.Fatalf("the unit is still %s", out)
				}
			}
		})
	}
	if out, err := exec.CommandContext(t.Context(), "pgrep", "-f", "sleep 60[01]").Output(); err == nil {
		t.Errorf("processes are left: %s", out)
	}
}

// TestSystemdExecIsCancelled ends the command when the agent ends.
func TestSystemdExecIsCancelled(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	_, err := systemdForTest(t).Run(ctx, TransientCommand{
		Unit: "nixfleet-check-cancel.service", Program: "/bin/sleep", Args: []string{"602"}, Timeout: time.Minute,
	}, process.NewCapture(100, nil, 0))
	if err == nil {
		t.Fatal("no error")
	}
	over := time.Now().Add(20 * time.Second)
	for systemctl(t, "show", "-P", "ActiveState", "nixfleet-check-cancel.service") != "inactive" {
		if time.Now().After(over) {
			t.Fatal("the unit is still there")
		}
	}
}

func TestSystemdUnits(t *testing.T) {
	unitFile(t, "nixfleet-x-fails.service", "Type=oneshot\nExecStart=/bin/false\n")
	unitFile(t, "nixfleet-x-runs.service", "ExecStart=/bin/sleep 600\n")
	unitFile(t, "nixfleet-x-loops.service", "ExecStart=/bin/sh -c 'exit 7'\nRestart=always\nRestartSec=3\nStartLimitIntervalSec=0\n")
	p := &Prober{Root: "/", Units: systemdForTest(t)}
	before, err := p.Baseline(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"nixfleet-x-fails", "nixfleet-x-runs", "nixfleet-x-loops"} {
		systemctl(t, "start", "--no-block", name+".service")
	}
	root := systemRoot(t, "nixfleet-x-fails.service", "nixfleet-x-runs.service", "nixfleet-x-loops.service")
	p.Root = root
	got := p.UntilHealthy(t.Context(), []Check{NewlyFailed(target.String(), *before)})[0]
	for _, part := range []string{"nixfleet-x-fails.service failed (exit-code)", "nixfleet-x-loops.service is activating (auto-restart) and was restarted"} {
		if !strings.Contains(got.Message, part) {
			t.Errorf("got %q, want %q in it", got.Message, part)
		}
	}
	if strings.Contains(got.Message, "runs") {
		t.Errorf("got %q", got.Message)
	}
	named := p.Once(t.Context(), []Check{
		{Name: "good", Type: "systemd", Systemd: &Systemd{Units: []string{"nixfleet-x-runs.service", "basic.target"}}},
		{Name: "bad", Type: "systemd", Systemd: &Systemd{Units: []string{"nixfleet-x-fails.service", "no-such-thing.service"}}},
	})
	if !named[0].Healthy || named[1].Healthy || !strings.Contains(named[1].Message, "no-such-thing.service does not exist") {
		t.Errorf("got %+v", named)
	}
	after, err := p.Baseline(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := p.UntilHealthy(t.Context(), []Check{NewlyFailed(target.String(), *after)})[0]; !got.Healthy {
		t.Errorf("what had failed before counts: %+v", got)
	}
}
