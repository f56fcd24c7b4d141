// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package datadir

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// InUseError says that another process holds the data directory.
type InUseError struct {
	// Path is the data directory.
	Path string
	// PID is the holder as it noted itself, or 0 when it did not get to it.
	PID int
}

func (e *InUseError) Error() string {
	holder := "another process"
	if e.PID != 0 {
		holder = fmt.Sprintf("another process (%d)", e.PID)
	}
	return fmt.Sprintf("data directory %s is in use by %s: stop that one first, or give another directory with --data-dir", e.Path, holder)
}

// Dir is a data directory held by this process. Close releases it.
type Dir struct {
	path string
	lock *os.File
}

// Open makes the directory at path where it is missing, takes its lock, and
// makes its private parts (mode 0700). It returns an *InUseError when another
// process has it.
func Open(path string) (*Dir, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("data directory %s: %w", path, err)
	}
	d := &Dir{path: abs}
	if err := d.prepare(); err != nil {
		if _, inUse := errors.AsType[*InUseError](err); inUse {
			return nil, err
		}
		return nil, fmt.Errorf("data directory %s cannot be used: %w (give a directory that this user may write with --data-dir)", abs, err)
	}
	return d, nil
}

// Path is the absolute path of the data directory.
func (d *Dir) Path() string { return d.path }

// Etcd is the directory of etcd's own files and of its socket.
func (d *Dir) Etcd() string { return filepath.Join(d.path, "etcd") }

// PKI is the directory of certificates and keys.
func (d *Dir) PKI() string { return filepath.Join(d.path, "pki") }

// AdminKubeconfig is the file with the administrator's credentials.
func (d *Dir) AdminKubeconfig() string { return filepath.Join(d.path, "admin.kubeconfig") }

// Close releases the directory for another process. The lock file stays: were
// it removed, a process that has it open already could hold a lock that nobody
// else sees.
func (d *Dir) Close() error {
	return d.lock.Close()
}

func (d *Dir) prepare() error {
	if err := os.MkdirAll(d.path, 0o700); err != nil {
		return err
	}
	if err := d.acquire(); err != nil {
		return err
	}
	for _, private := range []string{d.Etcd(), d.PKI()} {
		if err := makePrivate(private); err != nil {
			return errors.Join(err, d.lock.Close())
		}
	}
	return nil
}

// acquire takes an flock, which the kernel drops with the process: a crash
// leaves nothing that someone would have to clean up.
func (d *Dir) acquire() error {
	lock, err := os.OpenFile(filepath.Join(d.path, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	err = unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = &InUseError{Path: d.path, PID: holder(lock)}
	}
	if err == nil {
		err = notePID(lock)
	}
	if err != nil {
		return errors.Join(err, lock.Close())
	}
	d.lock = lock
	return nil
}

// makePrivate also repairs the mode of a directory that was restored from a
// backup with a laxer one.
func makePrivate(path string) error {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return err
	}
	return os.Chmod(path, 0o700)
}

func notePID(lock *os.File) error {
	if err := lock.Truncate(0); err != nil {
		return err
	}
	_, err := lock.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return err
}

// holder reads who has the lock; it is only for the message, so that nothing
// readable is simply "not known".
func holder(lock *os.File) int {
	buf := make([]byte, 32)
	n, _ := lock.ReadAt(buf, 0)
	pid, err := strconv.Atoi(strings.TrimSpace(string(buf[:n])))
	if err != nil {
		return 0
	}
	return pid
}
