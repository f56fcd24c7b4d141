// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package activation

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// keptLogs is how many logs of earlier runs are kept.
const keptLogs = 40

// pruneLogs removes the oldest logs, so that they do not fill the disk over the years.
func pruneLogs(dir string) error {
	if dir == "" {
		return nil
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at the logs: %w", err)
	}
	type log struct {
		name    string
		written time.Time
	}
	var logs []log
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil || !info.Mode().IsRegular() || !strings.HasSuffix(entry.Name(), ".log") {
			continue // gone meanwhile, or not ours
		}
		logs = append(logs, log{entry.Name(), info.ModTime()})
	}
	slices.SortFunc(logs, func(a, b log) int { return cmp.Or(b.written.Compare(a.written), cmp.Compare(b.name, a.name)) })
	for _, old := range logs[min(len(logs), keptLogs):] {
		if err := os.Remove(filepath.Join(dir, old.name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove an old log: %w", err)
		}
	}
	return nil
}
