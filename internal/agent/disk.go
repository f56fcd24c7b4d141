// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package agent

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/nixfleet/nixfleet/internal/nix/binarycache"
)

const (
	// mostReserved is what stays free on a large disk; on a small one a twentieth does.
	mostReserved = 2 << 30

	// bytesPerFile is less than the average in a store of NixOS.
	bytesPerFile = 16 << 10

	reservedFiles = 1000
)

// disk is the room on a file system. Files is 0 on those that make inodes as they need
// them.
type disk struct {
	free, total      uint64 // bytes
	files, freeFiles uint64
}

func diskOf(dir string) (disk, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return disk{}, fmt.Errorf("look at the disk of the store: %w", err)
	}
	size := uint64(st.Bsize) //nolint:gosec // a block size is positive; its type differs by platform
	return disk{free: st.Bavail * size, total: st.Blocks * size, files: st.Files, freeFiles: st.Ffree}, nil
}

// fits says why there is too little room for a fetch. The largest path is counted twice: it
// may be there as a download and unpacked.
func (d disk) fits(need binarycache.Need) error {
	if need.Paths == 0 {
		return nil
	}
	wanted := need.NarBytes + need.NarBytes/10 + need.LargestNar + min(d.total/20, mostReserved)
	if wanted > d.free {
		return fmt.Errorf("the system needs %d MiB with its reserve, and %d MiB are free", wanted>>20, d.free>>20)
	}
	if files := need.NarBytes/bytesPerFile + reservedFiles; d.files > 0 && files > d.freeFiles {
		return fmt.Errorf("the system needs about %d inodes with its reserve, and %d are free", files, d.freeFiles)
	}
	return nil
}
