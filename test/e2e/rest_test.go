//go:build e2e

// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package e2e

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// atRest is longer than the agent's period for looking at the running system.
const atRest = 75 * time.Second

// TestRest watches a host that nothing is asked of. What the agent takes is logged; that it
// writes nothing but its Lease is asserted.
func TestRest(t *testing.T) {
	t.Parallel()
	const name = "rest"
	h := start(t, name, 16)
	h.succeeds(t, newSystem(name, "calm"))
	h.healthy(t)
	first, err := h.object()
	if err != nil {
		t.Fatal(err)
	}
	pid := h.agentPID(t)
	begin, before := time.Now(), cpuTime(t, pid)
	h.waitFor(t, "time goes by", func() (bool, string) {
		return time.Since(begin) > atRest, ""
	})
	took := cpuTime(t, pid) - before
	last, err := h.object()
	if err != nil {
		t.Fatal(err)
	}
	if first.ResourceVersion != last.ResourceVersion {
		t.Errorf("the Host was written at rest: from %+v to %+v", first.Status, last.Status)
	}
	t.Logf("the agent has %s resident and took %.3f %% of a core, with a heartbeat every 2 s and a look at the system every minute",
		memory(t, pid), 100*took.Seconds()/time.Since(begin).Seconds())
}

// agentPID is the agent's process as this machine numbers it.
func (h *host) agentPID(t *testing.T) int {
	t.Helper()
	leader, err := h.leader()
	if err != nil {
		t.Fatal(err)
	}
	out, err := output(nil, "pgrep", "--ns", strconv.Itoa(leader), "--nslist", "pid", "nixfleet-agent")
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(out))
	if err != nil {
		t.Fatalf("%q: %v", out, err)
	}
	return pid
}

// cpuTime is what a process has taken, in user and system mode; see proc(5).
func cpuTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	var ticks int64
	for _, field := range fields[11:13] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		ticks += n
	}
	const perSecond = 100 // USER_HZ is 100 on every architecture that Go supports
	return time.Duration(ticks) * time.Second / perSecond
}

func memory(t *testing.T, pid int) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			return strings.TrimSpace(value)
		}
	}
	t.Fatal("no VmRSS")
	return ""
}
