//go:build integration && linux

// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package agent

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

// TestFullDisk keeps the state on a disk that is really full: an order is not begun, the
// journal stays whole, the host stays as it is, and the order is carried out when there
// is room again.
func TestFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting a small disk needs root")
	}
	b := newBody(t)
	if err := unix.Mount("tmpfs", b.dir, "tmpfs", 0, "size=128k"); err != nil {
		t.Skipf("a small disk cannot be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(b.dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	whole := Journal{HostUID: "uid", Good: oldSystem}
	if err := NewJournalFile(b.dir, time.Now).Save(whole); err != nil {
		t.Fatal(err)
	}
	ballast := filepath.Join(b.dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 1<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}

	b.live(t, "boot-1")
	if changes := b.withoutJournal(); len(changes) > 0 {
		t.Fatalf("the host was changed: %v", changes)
	}
	if text := everything(b.last); !strings.Contains(text, "no space left on device") {
		t.Errorf("nobody says why: %s", text)
	}
	if j, err := NewJournalFile(b.dir, time.Now).Load(); err != nil || j.Good != oldSystem || j.Open != nil {
		t.Errorf("journal %+v, %v", j, err)
	}
	if left, err := filepath.Glob(filepath.Join(b.dir, ".journal*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}

	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	b.live(t, "boot-1")
	b.wantEnd(t, nfv1.AttemptSucceeded, nfv1.ReasonCompleted)
}
