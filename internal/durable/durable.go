// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

// Package durable writes small files so that a loss of power leaves either what was there
// before or what was written, whole. It knows nothing of what the files mean.
package durable

import (
	"errors"
	"os"
	"path/filepath"
)

// WriteFile replaces the file name in dir: write, fsync, rename, fsync of the directory.
// What it wrote is on disk when it returns without an error. The mode is 0600.
func WriteFile(dir, name string, data []byte) (err error) {
	tmp, err := os.CreateTemp(dir, "."+name+"-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(tmp.Name()))
		}
	}()
	if _, err := tmp.Write(data); err != nil {
		return errors.Join(err, tmp.Close())
	}
	if err := tmp.Sync(); err != nil {
		return errors.Join(err, tmp.Close())
	}
	if err := tmp.Close(); err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), filepath.Join(dir, name)); err != nil {
		return err
	}
	return SyncDir(dir)
}

// SyncDir makes the names in a directory durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
