// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package agent

import (
	"strings"
	"testing"

	"github.com/nixfleet/nixfleet/internal/nix/binarycache"
)

func TestDiskFits(t *testing.T) {
	const gib, mib = 1 << 30, 1 << 20
	for name, tc := range map[string]struct {
		disk disk
		need binarycache.Need
		want string // part of the error
	}{
		"much room":      {disk{free: 50 * gib, total: 100 * gib, files: 1e6, freeFiles: 1e6}, binarycache.Need{Paths: 1, NarBytes: 4 * gib, LargestNar: gib}, ""},
		"just enough":    {disk{free: 1220 * mib, total: 400 * mib}, binarycache.Need{Paths: 1, NarBytes: 1000 * mib, LargestNar: 100 * mib}, ""},
		"a byte less":    {disk{free: 1220*mib - 1, total: 400 * mib}, binarycache.Need{Paths: 1, NarBytes: 1000 * mib, LargestNar: 100 * mib}, "needs 1220 MiB with its reserve, and 1219 MiB are free"},
		"large disk":     {disk{free: 2*gib + 11*mib, total: 1000 * gib}, binarycache.Need{Paths: 1, NarBytes: 10 * mib}, ""},
		"no inodes":      {disk{free: 50 * gib, total: 100 * gib, files: 1e6, freeFiles: 1639}, binarycache.Need{Paths: 1, NarBytes: 10 * mib}, "needs about 1640 inodes"},
		"inodes enough":  {disk{free: 50 * gib, total: 100 * gib, files: 1e6, freeFiles: 1640}, binarycache.Need{Paths: 1, NarBytes: 10 * mib}, ""},
		"inodes at will": {disk{free: 50 * gib, total: 100 * gib}, binarycache.Need{Paths: 1, NarBytes: 10 * mib}, ""},
		"nothing to do":  {disk{}, binarycache.Need{}, ""},
		"absurd claim":   {disk{free: 50 * gib, total: 100 * gib}, binarycache.Need{Paths: 1, NarBytes: 1 << 63, LargestNar: 1}, "are free"},
	} {
		t.Run(name, func(t *testing.T) {
			err := tc.disk.fits(tc.need)
			if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}
