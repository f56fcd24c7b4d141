// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package deadman

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// killEvery is how often the processes of a unit are killed again: one may have started
// another meanwhile, and nobody tells when the last is gone.
const killEvery = 50 * time.Millisecond

// rebootNow is what is left when systemd does not answer.
func rebootNow() error {
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART); err != nil {
		return fmt.Errorf("reboot: %w", err)
	}
	return nil
}

// killCgroups kills all processes of a service and returns when none is left.
func killCgroups(ctx context.Context, unit string) error {
	tick := time.NewTicker(killEvery)
	defer tick.Stop()
	for {
		pids, err := cgroupProcesses("/sys/fs/cgroup", unit)
		if err != nil || len(pids) == 0 {
			return err
		}
		for _, pid := range pids {
			_ = unix.Kill(pid, unix.SIGKILL) // gone already: the aim
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("processes %v of %s do not end: %w", pids, unit, context.Cause(ctx))
		case <-tick.C:
		}
	}
}

// cgroupProcesses are the processes of a service of the system's slice, in either version
// of cgroups.
func cgroupProcesses(root, unit string) ([]int, error) {
	var pids []int
	for _, hierarchy := range []string{"", "systemd", "unified"} {
		top := filepath.Join(root, hierarchy, "system.slice", unit)
		err := filepath.WalkDir(top, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.Name() != "cgroup.procs" {
				return ignoreGone(err)
			}
			data, err := os.ReadFile(path)
			for line := range strings.Lines(string(data)) {
				if pid, err := strconv.Atoi(strings.TrimSpace(line)); err == nil && pid > 0 {
					pids = append(pids, pid)
				}
			}
			return ignoreGone(err)
		})
		if err != nil {
			return nil, fmt.Errorf("look for the processes of %s: %w", unit, err)
		}
	}
	return pids, nil
}

func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}
