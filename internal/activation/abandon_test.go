// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package activation

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/nixfleet/nixfleet/internal/attempt"
)

// TestAbandon ends a run whose agent does not wait for it any more. What it would have
// done last must not happen.
func TestAbandon(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("/proc is needed")
	}
	a := host(t, `: >$root/began; sleep 600; : >$root/went-on`)
	done := make(chan Result, 1)
	go func() {
		result, err := a.Test(t.Context(), attempt.System{Path: system}, time.Hour, "7")
		if err != nil {
			t.Error(err)
		}
		done <- result
	}()
	awaitFile(t, filepath.Join(a.Root, "began"))
	for _, other := range []struct {
		kind Kind
		id   string
	}{{KindBoot, "7"}, {KindTest, "77"}} {
		if err := a.Abandon(t.Context(), other.kind, other.id); err != nil {
			t.Fatal(err)
		}
		select {
		case r := <-done:
			t.Fatalf("ended with %s-%s: %+v", other.kind, other.id, r)
		default:
		}
	}
	if err := a.Abandon(t.Context(), KindTest, "7"); err != nil {
		t.Fatal(err)
	}
	if r := <-done; r.ExitCode == 0 {
		t.Errorf("got %+v", r)
	}
	if _, err := os.Stat(filepath.Join(a.Root, "went-on")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it went on: %v", err)
	}
}

func awaitFile(t *testing.T, name string) {
	t.Helper()
	end := time.Now().Add(20 * time.Second)
	for tick := time.NewTicker(5 * time.Millisecond); ; <-tick.C {
		if _, err := os.Stat(name); err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s is not there", name)
		}
	}
}

func TestLogsAreBounded(t *testing.T) {
	a := host(t, "exit 0")
	for n := range keptLogs + 5 {
		if _, err := a.Test(t.Context(), attempt.System{Path: system}, time.Minute, fmt.Sprint(n)); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := os.ReadDir(a.LogDir)
	if err != nil || len(entries) > keptLogs+1 {
		t.Errorf("%d logs, %v", len(entries), err)
	}
	if _, err := os.Stat(filepath.Join(a.LogDir, fmt.Sprintf("test-%d.log", keptLogs+4))); err != nil {
		t.Errorf("the newest log is gone: %v", err)
	}
}

// TestRunsWithoutLog takes a directory for logs that cannot be made, as on a full disk: a
// host must be able to go back all the same.
func TestRunsWithoutLog(t *testing.T) {
	a := host(t, `echo said; : >$root/ran`)
	a.LogDir = filepath.Join(a.Root, "file", "logs")
	if err := os.WriteFile(filepath.Join(a.Root, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := a.TestUnchecked(t.Context(), attempt.System{Path: system}, time.Minute, "1")
	if err != nil || got.ExitCode != 0 || got.Output != "said" || got.LogErr == nil {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err := os.Stat(filepath.Join(a.Root, "ran")); err != nil {
		t.Errorf("it did not run: %v", err)
	}
}
