// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package attempt

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

const (
	lockName = "lock"

	// lockLook is how often a lock that is held is tried again: the kernel tells nobody
	// when it is free, and a process that waits in flock cannot be told to give up.
	lockLook = 50 * time.Millisecond
)

// Lock takes the lock under which the system is changed, and waits for it until ctx ends.
// It is free again when release is called or the process ends.
func Lock(ctx context.Context, stateDir string) (release func(), err error) {
	f, err := os.OpenFile(filepath.Join(stateDir, lockName), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("take the lock for changes: %w", err)
	}
	tick := time.NewTicker(lockLook)
	defer tick.Stop()
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) //nolint:gosec // a file descriptor is small
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return nil, errors.Join(fmt.Errorf("take the lock for changes: %w", err), f.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("another process changes the system: %w", context.Cause(ctx)), f.Close())
		case <-tick.C:
		}
	}
}
