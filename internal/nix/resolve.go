// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package nix

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// ErrOutsideStore means that a file of a closure is a link to something that is not in
// the store. Such a file is not part of what was signed.
var ErrOutsideStore = errors.New("it leads outside the store")

// maxLinks is how many symbolic links a path may go through, as in Linux.
const maxLinks = 40

// resolver follows links that hold logical paths of a host whose file system begins at
// root. The kernel cannot do it: it would look for /nix/store on this machine. Every step
// goes through os.Root, so that whatever changes meanwhile, nothing outside root is read.
type resolver struct {
	root *os.Root
}

func openResolver(dir string) (*resolver, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open the root of the host: %w", err)
	}
	return &resolver{root: root}, nil
}

func (r *resolver) close() error { return r.root.Close() }

// resolve returns the logical path, free of links, that the logical path leads to. Errors:
// ErrOutsideStore, fs.ErrNotExist, too many links.
func (r *resolver) resolve(logical string) (string, error) {
	pending := splitPath(logical)
	var done []string
	links := 0
	for len(pending) > 0 {
		step := pending[0]
		pending = pending[1:]
		if step == ".." {
			// What has been resolved has no links left: going up is going up.
			done = done[:max(len(done)-1, 0)]
			continue
		}
		done = append(done, step)
		target, isLink, err := r.readlink(done)
		if err != nil {
			return "", fmt.Errorf("%s: %w", logical, err)
		}
		if !isLink {
			continue
		}
		if links++; links > maxLinks {
			return "", fmt.Errorf("%s: more than %d symbolic links", logical, maxLinks)
		}
		if path.IsAbs(target) {
			done = done[:0]
		} else {
			done = done[:len(done)-1]
		}
		pending = append(splitPath(target), pending...)
	}
	resolved := "/" + strings.Join(done, "/")
	if !strings.HasPrefix(resolved, StoreDir+"/") {
		return "", fmt.Errorf("%s: %w: %s", logical, ErrOutsideStore, resolved)
	}
	return resolved, nil
}

func (r *resolver) readlink(steps []string) (target string, isLink bool, err error) {
	name := strings.Join(steps, "/")
	stat, err := r.root.Lstat(name)
	if err != nil {
		return "", false, err
	}
	if stat.Mode()&fs.ModeSymlink == 0 {
		return "", false, nil
	}
	target, err = r.root.Readlink(name)
	return target, true, err
}

// readFile reads a regular file of at most limit bytes.
func (r *resolver) readFile(logical string, limit int64) ([]byte, error) {
	resolved, err := r.resolve(logical)
	if err != nil {
		return nil, err
	}
	name := strings.TrimPrefix(resolved, "/")
	// Before it is opened: opening a pipe would wait for ever.
	if err := r.requireRegular(name, logical); err != nil {
		return nil, err
	}
	file, err := r.root.Open(name)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", logical, err)
	}
	data, err := io.ReadAll(io.LimitReader(file, limit+1))
	if err := errors.Join(err, file.Close()); err != nil {
		return nil, fmt.Errorf("%s: %w", logical, err)
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s: it has more than %d bytes", logical, limit)
	}
	return data, nil
}

func (r *resolver) requireRegular(name, logical string) error {
	stat, err := r.root.Lstat(name)
	if err != nil {
		return fmt.Errorf("%s: %w", logical, err)
	}
	if !stat.Mode().IsRegular() {
		return fmt.Errorf("%s: it is not a regular file", logical)
	}
	return nil
}

// splitPath returns the steps of a path. ".." stays: it has to be taken after links.
func splitPath(p string) []string {
	return slices.DeleteFunc(strings.Split(p, "/"), func(step string) bool { return step == "" || step == "." })
}

// ResolveInStore returns where a logical path such as /nix/store/...-check/bin/check lies
// on this machine when the host's file system begins at root, with every link followed
// inside root. The error wraps ErrOutsideStore if it leads out of the store, and
// fs.ErrNotExist if there is nothing.
func ResolveInStore(root, logical string) (string, error) {
	r, err := openResolver(root)
	if err != nil {
		return "", err
	}
	resolved, err := r.resolve(logical)
	if err := errors.Join(err, r.close()); err != nil {
		return "", err
	}
	return filepath.Join(root, resolved), nil
}
