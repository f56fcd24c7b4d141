// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

//go:build systemd

package activation

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nixfleet/nixfleet/internal/attempt"
)

func unitsForTest(t *testing.T) *Units {
	t.Helper()
	u := NewUnits()
	if u == nil {
		t.Fatal("systemd does not run this machine")
	}
	return u
}

// planForTest is a plan whose agent writes its arguments to a file.
func planForTest(t *testing.T, number int64, text string) (attempt.Plan, string) {
	t.Helper()
	said := filepath.Join(t.TempDir(), "said")
	agent := script(t, `echo "$@" >>`+said+"\n"+text)
	return attempt.Plan{Number: number, StateDir: "/var/lib/state", Agent: agent, ActivationTimeoutSeconds: 60}, said
}

func awaitText(t *testing.T, file, want string, most time.Duration) {
	t.Helper()
	end := time.Now().Add(most)
	for {
		data, _ := os.ReadFile(file)
		if strings.Contains(string(data), want) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s says %q, want %q", file, data, want)
		}
		time.Sleep(50 * time.Millisecond) //nolint:forbidigo // a file of another process is waited for
	}
}

func systemctl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("systemctl", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("systemctl %v: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// TestSystemdTimersFire arms both stages. What the machine goes through meanwhile must
// not keep them from firing at their time.
func TestSystemdTimersFire(t *testing.T) {
	for name, disturb := range map[string]func(t *testing.T){
		"in peace":      func(*testing.T) {},
		"daemon-reload": func(t *testing.T) { systemctl(t, "daemon-reload") },
		"daemon-reexec": func(t *testing.T) { systemctl(t, "daemon-reexec") },
		"both":          func(t *testing.T) { systemctl(t, "daemon-reexec"); systemctl(t, "daemon-reload") },
		"no bus":        func(t *testing.T) { systemctl(t, "stop", "dbus.service", "dbus.socket") },
	} {
		t.Run(name, func(t *testing.T) {
			u := unitsForTest(t)
			for s, trigger := range map[Stage]string{StageActivation: TriggerActivationTimer, StageConfirm: TriggerConfirmTimer} {
				p, said := planForTest(t, 7, "")
				begin := time.Now()
				if err := u.Arm(t.Context(), p, s, 3*time.Second); err != nil {
					t.Fatal(err)
				}
				disturb(t)
				awaitText(t, said, "rollback --attempt 7 --state-dir /var/lib/state --trigger "+trigger, 10*time.Second)
				if took := time.Since(begin); took < 2900*time.Millisecond || took > 6*time.Second {
					t.Errorf("fired after %s", took)
				}
			}
		})
	}
}

// TestSystemdTimersSurviveEmergency isolates emergency mode, which stops all that depends
// on an ordinary boot.
func TestSystemdTimersSurviveEmergency(t *testing.T) {
	u := unitsForTest(t)
	p, said := planForTest(t, 8, "")
	usual := exec.Command("systemd-run", "--unit=nixfleet-usual", "--on-active=5", "/bin/sh", "-c", "echo usual >>"+said)
	if out, err := usual.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := u.Arm(t.Context(), p, StageConfirm, 6*time.Second); err != nil {
		t.Fatal(err)
	}
	helper, helped := planForTest(t, 9, "sleep 7; echo survived >>"+said)
	if err := u.StartActivation(t.Context(), helper); err != nil {
		t.Fatal(err)
	}
	awaitText(t, helped, "activate", 5*time.Second)
	systemctl(t, "--no-block", "isolate", "emergency.target")
	awaitText(t, said, "--trigger "+TriggerConfirmTimer, 15*time.Second)
	awaitText(t, said, "survived", 15*time.Second)
	if data, err := os.ReadFile(said); err != nil || strings.Contains(string(data), "usual") {
		t.Errorf("emergency mode did not stop an ordinary timer, so this proves nothing: %q, %v", data, err)
	}
}

func TestSystemdTimersAreDisarmed(t *testing.T) {
	u := unitsForTest(t)
	p, said := planForTest(t, 10, "")
	// A stage that is armed again counts from then on.
	for _, after := range []time.Duration{time.Second, time.Hour} {
		if err := u.Arm(t.Context(), p, StageActivation, after); err != nil {
			t.Fatal(err)
		}
	}
	if got := systemctl(t, "is-active", TimerName(p, StageActivation)+".timer"); got != "active" {
		t.Errorf("the timer is %s", got)
	}
	for range 2 {
		if err := u.Disarm(t.Context(), p, StageActivation); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("systemctl", "is-active", TimerName(p, StageActivation)+".timer").Output(); err == nil {
		t.Errorf("the timer is still %s", out)
	}
	if data, err := os.ReadFile(said); err == nil {
		t.Errorf("it fired: %s", data)
	}
}

// TestSystemdActivationIsJoined starts the helper twice, waits for it as another process
// does, and stops one that hangs.
func TestSystemdActivationIsJoined(t *testing.T) {
	u := unitsForTest(t)
	p, said := planForTest(t, 11, "trap '' TERM; sleep 600 & wait; sleep 600")
	for range 2 {
		if err := u.StartActivation(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	awaitText(t, said, "activate --attempt 11 --state-dir /var/lib/state", 5*time.Second)
	if active, err := u.Active(t.Context(), ActivateUnit(p)); err != nil || !active {
		t.Fatalf("active %v, %v", active, err)
	}
	if err := u.StopActivation(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if active, err := u.Active(t.Context(), ActivateUnit(p)); err != nil || active {
		t.Fatalf("active %v, %v", active, err)
	}
	if data, err := os.ReadFile(said); err != nil || strings.Count(string(data), "activate") != 1 {
		t.Errorf("it was begun again: %q, %v", data, err)
	}
	if err := u.StopActivation(t.Context(), p); err != nil {
		t.Errorf("one that is gone: %v", err)
	}
}

// TestSystemdStaleAgent compares a process with what its unit would start.
func TestSystemdStaleAgent(t *testing.T) {
	u := unitsForTest(t)
	const unit = "nixfleet-test-agent.service"
	dir := t.TempDir()
	config := filepath.Join(dir, "agent.yaml")
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(name, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(config, "one")
	write("/run/systemd/system/"+unit, "[Service]\nExecStart=/bin/sleep 600\n")
	t.Cleanup(func() {
		systemctl(t, "stop", unit)
		_ = os.Remove("/run/systemd/system/" + unit)
		systemctl(t, "daemon-reload")
	})
	systemctl(t, "daemon-reload")
	systemctl(t, "start", unit)
	agent := func() attempt.Agent {
		pid, err := strconv.Atoi(systemctl(t, "show", "-p", "MainPID", "--value", unit))
		if err != nil {
			t.Fatal(err)
		}
		exe, err := filepath.EvalSymlinks("/bin/sleep") //nolint:forbidigo // a program of this machine
		if err != nil {
			t.Fatal(err)
		}
		return attempt.Agent{PID: pid, Program: exe, Executable: exe, Args: []string{"600"}, Config: config, ConfigDigest: attempt.DigestFile(config)}
	}
	a := agent()
	want := func(part string) {
		t.Helper()
		why, err := u.Stale(t.Context(), unit, a)
		if err != nil || (part == "") != (why == "") || !strings.Contains(why, part) {
			t.Errorf("stale: %q, %v; want %q", why, err, part)
		}
	}
	want("")
	write(config, "two")
	want("has changed since")
	a = agent()
	write("/run/systemd/system/"+unit, "[Service]\nExecStart=/bin/sleep 601\n")
	systemctl(t, "daemon-reload")
	want("arguments")
	write("/run/systemd/system/"+unit, "[Service]\nExecStart=/bin/cat /dev/zero\n")
	systemctl(t, "daemon-reload")
	want("runs ")

	state := t.TempDir()
	if err := attempt.SaveAgent(state, a); err != nil {
		t.Fatal(err)
	}
	if err := u.Freshen(t.Context(), attempt.Plan{StateDir: state, AgentUnit: unit}); err != nil {
		t.Fatal(err)
	}
	before := a.PID
	end := time.Now().Add(10 * time.Second)
	for a = agent(); a.PID == before || a.PID == 0; a = agent() {
		if time.Now().After(end) {
			t.Fatal("it was not restarted")
		}
		time.Sleep(50 * time.Millisecond) //nolint:forbidigo // another process is waited for
	}
	// One that has not said what it is was started a moment ago.
	if err := u.Freshen(t.Context(), attempt.Plan{StateDir: state, AgentUnit: unit}); err != nil {
		t.Fatal(err)
	}
	if again := agent(); again.PID != a.PID {
		t.Error("it was restarted twice")
	}
	systemctl(t, "stop", unit)
	want("does not run")
}
