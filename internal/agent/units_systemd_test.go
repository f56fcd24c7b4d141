// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

//go:build systemd

package agent

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nixfleet/nixfleet/internal/activation"
	"github.com/nixfleet/nixfleet/internal/attempt"
	"github.com/nixfleet/nixfleet/internal/nix"
)

// These tests carry attempts out in units of a real systemd, with the real program, on
// the machine that they run on: see hack/test-systemd.sh.

const agentForTest = "/root/nixfleet-agent"

// machineForTest is this machine with two systems in its store.
type machineForTest struct {
	*testing.T
	hands *unitHands
	base  attempt.Plan
	dir   string
}

func newMachineForTest(t *testing.T) *machineForTest {
	t.Helper()
	m := &machineForTest{T: t, dir: t.TempDir()}
	m.base = attempt.Plan{
		Root: "/", StateDir: m.dir, BootID: bootID(), Profile: nix.NewProfile("/").Link(), Agent: agentForTest,
		ActivationTimeoutSeconds: 3, HealthBudgetSeconds: 3, ConfirmTimeoutSeconds: 3,
	}
	os := &activation.NixOS{Root: "/", Runner: activation.NewRunner("/"), LogDir: filepath.Join(m.dir, "logs")}
	hands, ok := newHands(&m.base, os, attempt.Agent{}, slog.New(slog.NewTextHandler(t.Output(), nil))).(*unitHands)
	if !ok {
		t.Fatal("systemd does not run this machine")
	}
	m.hands = hands
	m.system(oldSystem, "")
	m.link(oldSystem)
	return m
}

// system writes a system whose program links it last, after extra.
func (m *machineForTest) system(path nix.StorePath, extra string) {
	m.Helper()
	bin := filepath.Join(path.String(), "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		m.Fatal(err)
	}
	text := fmt.Sprintf("#!/bin/sh\necho $1 %s\n%s\nln -sfn %s /run/current-system\n", path.Name(), extra, path)
	if err := os.WriteFile(filepath.Join(bin, "switch-to-configuration"), []byte(text), 0o755); err != nil {
		m.Fatal(err)
	}
}

func (m *machineForTest) link(path nix.StorePath) {
	m.Helper()
	_ = os.Remove("/run/current-system")
	if err := os.Symlink(path.String(), "/run/current-system"); err != nil {
		m.Fatal(err)
	}
}

func (m *machineForTest) plan(number int64) (attempt.Plan, attempt.Dir) {
	m.Helper()
	p := m.base
	p.Number, p.Nonce = number, attempt.NewNonce()
	p.Target, p.Previous = attempt.System{Path: newSystem}, attempt.System{Path: oldSystem}
	now, err := attempt.Monotonic()
	if err != nil {
		m.Fatal(err)
	}
	p.ActivateBy = int64(now + activation.StageOneAfter(p))
	d, err := attempt.Create(p)
	if err != nil {
		m.Fatal(err)
	}
	return p, d
}

func (m *machineForTest) wantRuns(path nix.StorePath) {
	m.Helper()
	if got, _, err := m.hands.Running(); err != nil || got != path {
		m.Errorf("%s runs, %v; want %s", got, err, path)
	}
}

// await waits for what other processes do.
func (m *machineForTest) await(what string, most time.Duration, met func() bool) {
	m.Helper()
	for end := time.Now().Add(most); !met(); time.Sleep(50 * time.Millisecond) { //nolint:forbidigo // other processes are waited for
		if time.Now().After(end) {
			m.Fatalf("not within %s: %s", most, what)
		}
	}
}

// TestSystemdDeadManConfirms activates a system that nobody confirms: the timer goes back.
func TestSystemdDeadManConfirms(t *testing.T) {
	m := newMachineForTest(t)
	m.system(newSystem, "")
	p, d := m.plan(101)
	if err := m.hands.Arm(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	a, err := m.hands.Activate(t.Context(), p)
	if err != nil || !a.Ended || a.ExitCode != 0 || a.ConfirmBy == 0 {
		t.Fatalf("%+v, %v", a, err)
	}
	m.wantRuns(newSystem)
	began := time.Now()
	m.await("the dead man's switch", 20*time.Second, func() bool {
		r, err := d.Rollback()
		return err == nil && r.Outcome != ""
	})
	if took := time.Since(began); took < 4*time.Second || took > 12*time.Second {
		t.Errorf("it took %s", took)
	}
	m.wantRuns(oldSystem)
	if r, err := d.Rollback(); err != nil || r.Trigger != activation.TriggerConfirmTimer || r.Outcome != attempt.RolledBack {
		t.Errorf("%+v, %v", r, err)
	}
	if v, err := d.Decide(attempt.Commit); err != nil || v != attempt.Rollback {
		t.Errorf("an agent that comes late may decide %q, %v", v, err)
	}
	if r, err := m.hands.Rollback(t.Context(), p); err != nil || r.Trigger != activation.TriggerConfirmTimer {
		t.Errorf("it was done again: %+v, %v", r, err)
	}
}

// TestSystemdCommitStays decides in time: no timer undoes it.
func TestSystemdCommitStays(t *testing.T) {
	m := newMachineForTest(t)
	m.system(newSystem, "")
	p, d := m.plan(102)
	if err := m.hands.Arm(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if _, err := m.hands.Activate(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if v, err := d.Decide(attempt.Commit); err != nil || v != attempt.Commit {
		t.Fatalf("%q, %v", v, err)
	}
	// Not settled on purpose: the timer fires and finds it decided.
	unit := activation.TimerName(p, activation.StageConfirm) + ".timer"
	m.await("the timer", 20*time.Second, func() bool {
		active, err := m.hands.units.Active(t.Context(), unit)
		return err == nil && !active
	})
	log := filepath.Join(m.dir, "logs", "deadman-102.log")
	m.await("its word", 10*time.Second, func() bool { data, err := os.ReadFile(log); return err == nil && len(data) > 0 })
	m.wantRuns(newSystem)
	if err := m.hands.Settle(t.Context(), p); err != nil {
		t.Error(err)
	}
}

// TestSystemdHelperIsKilled ends the helper in mid-activation, as the kernel may.
func TestSystemdHelperIsKilled(t *testing.T) {
	m := newMachineForTest(t)
	began := filepath.Join(m.dir, "began")
	m.system(newSystem, ": >"+began+"; sleep 600")
	p, _ := m.plan(103)
	p.ActivationTimeoutSeconds = 600
	lost := make(chan error, 1)
	go func() {
		_, err := m.hands.Activate(t.Context(), p)
		lost <- err
	}()
	m.await("the activation", 10*time.Second, func() bool { _, err := os.Stat(began); return err == nil })
	if err := m.hands.units.StopActivation(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if err := <-lost; err == nil {
		t.Error("a helper that was killed left a result")
	}
	if _, joined, err := m.hands.Join(t.Context(), p); joined || err != nil {
		t.Errorf("joined %v, %v", joined, err)
	}
	if r, err := m.hands.Rollback(t.Context(), p); err != nil || r.Outcome != attempt.RolledBack || r.Trigger != activation.TriggerAgent {
		t.Errorf("%+v, %v", r, err)
	}
	m.wantRuns(oldSystem)
}

// TestSystemdRollbackEndsTheActivation goes back while the new system's program hangs and
// ignores being asked to end.
func TestSystemdRollbackEndsTheActivation(t *testing.T) {
	m := newMachineForTest(t)
	began, went := filepath.Join(m.dir, "began"), filepath.Join(m.dir, "went-on")
	m.system(newSystem, "trap '' TERM; : >"+began+"; setsid sh -c 'trap \"\" TERM; sleep 30; : >"+went+"' & sleep 600 & while :; do wait; done")
	p, d := m.plan(104)
	if err := m.hands.units.StartActivation(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	m.await("the activation", 10*time.Second, func() bool { _, err := os.Stat(began); return err == nil })
	if err := m.hands.units.Arm(t.Context(), p, activation.StageActivation, time.Second); err != nil {
		t.Fatal(err)
	}
	m.await("the dead man's switch", 60*time.Second, func() bool {
		r, err := d.Rollback()
		return err == nil && r.Outcome == attempt.RolledBack
	})
	m.wantRuns(oldSystem)
	if active, err := m.hands.units.Active(t.Context(), activation.ActivateUnit(p)); err != nil || active {
		t.Errorf("the activation goes on: %v, %v", active, err)
	}
	if _, err := os.Stat(went); err == nil {
		t.Error("what it had started goes on")
	}
}
