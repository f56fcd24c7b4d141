// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package datadir

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestOpenMakesPrivateDirectories(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "data")
	dir, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = dir.Close() })

	for _, private := range []string{path, dir.Etcd(), dir.PKI()} {
		info, err := os.Stat(private)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o700 {
			t.Errorf("%s has mode %o, want 700", private, info.Mode().Perm())
		}
	}
}

func TestOpenTightensRestoredDirectories(t *testing.T) {
	path := t.TempDir()
	if err := os.Mkdir(filepath.Join(path, "pki"), 0o755); err != nil {
		t.Fatal(err)
	}
	dir, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = dir.Close() })

	info, err := os.Stat(dir.PKI())
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o700 {
		t.Errorf("pki has mode %o, want 700", info.Mode().Perm())
	}
}

func TestSecondOpenIsRefusedAndNamesDirectoryAndProcess(t *testing.T) {
	path := t.TempDir()
	first, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}

	// flock belongs to the open file, so a second Open in this process meets
	// the lock as another process would.
	_, err = Open(path)
	inUse, ok := errors.AsType[*InUseError](err)
	if !ok {
		t.Fatalf("second Open: %v, want an InUseError", err)
	}
	if inUse.Path != path || inUse.PID != os.Getpid() {
		t.Errorf("got %+v, want path %s and process %d", inUse, path, os.Getpid())
	}
	if !strings.Contains(err.Error(), path) {
		t.Errorf("message %q does not name %s", err, path)
	}

	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := Open(path)
	if err != nil {
		t.Fatalf("Open after Close: %v", err)
	}
	t.Cleanup(func() { _ = again.Close() })
}

func TestOpenBelowAFileNamesTheFlag(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Open(filepath.Join(file, "data"))
	if err == nil || !strings.Contains(err.Error(), "--data-dir") {
		t.Fatalf("got %v, want an error that names --data-dir", err)
	}
}
