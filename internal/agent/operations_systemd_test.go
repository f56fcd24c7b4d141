// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

//go:build systemd

package agent

import (
	"context"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nixfleet/nixfleet/internal/attempt"
)

func systemctl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(context.WithoutCancel(t.Context()), "systemctl", args...).CombinedOutput()
	if err != nil {
		t.Logf("systemctl %v: %v: %s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// TestSystemdBrokenUnitIsMended goes back from a system that broke a unit which the old
// system's program does not start again. The way back does, and needs no reboot for it.
func TestSystemdBrokenUnitIsMended(t *testing.T) {
	const unit = "nixfleet-x-web.service"
	m := newMachineForTest(t)
	broken := filepath.Join(m.dir, "broken")
	text := "[Service]\nExecStart=/bin/sh -c 'test ! -e " + broken + " && exec sleep infinity'\n"
	etc := filepath.Join(oldSystem.String(), "etc/systemd/system")
	if err := os.MkdirAll(etc, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{filepath.Join(etc, unit), "/run/systemd/system/" + unit} {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil { //nolint:gosec // systemd reads it
			t.Fatal(err)
		}
	}
	systemctl(t, "daemon-reload")
	systemctl(t, "start", unit)
	t.Cleanup(func() { systemctl(t, "stop", unit) })
	m.system(newSystem, ": >"+broken+"; systemctl restart "+unit+"; sleep 1; systemctl is-failed "+unit+" || exit 3")
	m.system(oldSystem, "rm -f "+broken)
	m.base.ActivationTimeoutSeconds, m.base.HealthBudgetSeconds, m.base.ConfirmTimeoutSeconds = 60, 80, 60
	m.base.Baseline.UnitsChecked = true
	p, _ := m.plan(110)
	a, err := m.hands.Activate(t.Context(), p)
	if err != nil || a.ExitCode != 0 || systemctl(t, "is-failed", unit) != "failed" {
		t.Fatalf("the unit is not broken: %+v, %v", a, err)
	}
	r, err := m.hands.Rollback(t.Context(), p)
	if err != nil || r.Outcome != attempt.RolledBack || len(r.Problems) > 0 {
		t.Errorf("%+v, %v", r, err)
	}
	m.wantRuns(oldSystem)
	if got := systemctl(t, "is-active", unit); got != "active" {
		t.Errorf("the unit is %s", got)
	}
}

// TestSystemdWatchdog runs the agent in a unit that waits for its word and ends it without
// signs of life: it gives both, though it cannot reach the control plane, and stops being
// alive for systemd when it is stopped in its tracks.
func TestSystemdWatchdog(t *testing.T) {
	const unit = "nixfleet-x-agent.service"
	m := newMachineForTest(t)
	g := newFakeGateway(t, order1())
	ca := filepath.Join(m.dir, "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: g.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	g.update(func() { g.down = true })
	args := []string{"--unit", unit, "--collect", "-p", "Type=notify", "-p", "WatchdogSec=3", "-p", "TimeoutStartSec=20", "-p", "Restart=no",
		agentForTest, "run", "--config", "", "--server", g.URL, "--ca-file", ca, "--host-name", "h", "--trusted-public-key", testKey, "--state-dir", m.dir}
	if out, err := exec.CommandContext(t.Context(), "systemd-run", args...).CombinedOutput(); err != nil {
		t.Fatalf("it did not say that it is ready: %v: %s\n%s", err, out, systemctl(t, "status", unit))
	}
	t.Cleanup(func() { systemctl(t, "stop", unit) })
	pid := systemctl(t, "show", "-P", "MainPID", unit)
	alive := time.Now()
	m.await("three times the watchdog's time", 15*time.Second, func() bool {
		return time.Since(alive) > 9*time.Second || systemctl(t, "is-active", unit) != "active"
	})
	if got := systemctl(t, "show", "-P", "MainPID", unit); got != pid || pid == "0" {
		t.Fatalf("it was ended: %q, was %q", got, pid)
	}
	if got := systemctl(t, "show", "-P", "StatusText", unit); got != "Idle at revision 0" {
		t.Errorf("it says %q", got)
	}
	systemctl(t, "kill", "--signal=STOP", unit)
	m.await("the end of an agent that hangs", 20*time.Second, func() bool { return systemctl(t, "is-active", unit) != "active" })
}
