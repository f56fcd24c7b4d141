// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package process

import (
	"os/exec"
	"runtime"
	"strings"
	"testing"
)

// TestKillMarkedEndsOrphans starts what a killed agent leaves behind: a program with a
// child in a session of its own.
func TestKillMarkedEndsOrphans(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("/proc is needed")
	}
	mark := "NIXFLEET_UNIT=" + t.TempDir()
	start := func(mark string) *exec.Cmd {
		cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", "setsid sleep 600 & echo ready; wait")
		cmd.Env = []string{"PATH=/usr/bin:/bin", mark}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := out.Read(make([]byte, 5)); err != nil {
			t.Fatal(err)
		}
		return cmd
	}
	other := start(mark + "0")
	cmd := start(mark)
	if pids, err := marked(mark); err != nil || len(pids) < 1 {
		t.Fatalf("found %v, %v", pids, err)
	}
	if err := KillMarked(t.Context(), mark); err != nil {
		t.Fatal(err)
	}
	if pids, err := marked(mark); err != nil || len(pids) > 0 {
		t.Fatalf("%v are left, %v", pids, err)
	}
	if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("the program ended with %v", err)
	}
	if pids, err := marked(mark + "0"); err != nil || len(pids) == 0 {
		t.Errorf("a process with another mark was killed: %v, %v", pids, err)
	}
	if err := KillMarked(t.Context(), mark+"0"); err != nil {
		t.Error(err)
	}
	if err := other.Wait(); err == nil {
		t.Error("the other program ended well")
	}
}
