// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// KillMarked kills every process that was started with this entry, such as NAME=VALUE,
// in its environment, and returns when all are gone. It is for processes whose parent was
// killed. It works where /proc tells environments; elsewhere it finds none.
func KillMarked(ctx context.Context, entry string) error {
	tick := time.NewTicker(groupPoll)
	defer tick.Stop()
	patience := time.NewTimer(groupPatience)
	defer patience.Stop()
	for {
		pids, err := marked(entry)
		if err != nil || len(pids) == 0 {
			return err
		}
		// Again and again, since one may have started another meanwhile.
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL) // gone already: the aim
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-patience.C:
			return fmt.Errorf("processes %v are still there %s after SIGKILL", pids, groupPatience)
		}
	}
}

// marked finds the processes by the environment that they were started with. Those that
// have ended and wait for their parent have none any more.
func marked(entry string) ([]int, error) {
	files, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, file := range files {
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err != nil || pid == os.Getpid() {
			continue
		}
		environ, err := os.ReadFile(file)
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.ESRCH) {
				continue // it has ended, or is another user's
			}
			return nil, fmt.Errorf("look for what was left running: %w", err)
		}
		for field := range bytes.SplitSeq(environ, []byte{0}) {
			if string(field) == entry {
				pids = append(pids, pid)
				break
			}
		}
	}
	return pids, nil
}
