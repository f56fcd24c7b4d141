// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package nix

import (
	"context"
	"errors"
	"path/filepath"
)

var (
	// ErrNotValid means that a path is not registered in the store.
	ErrNotValid = errors.New("path is not in the store")

	// ErrNoProfile means that the profile was never set.
	ErrNoProfile = errors.New("the profile does not exist")
)

// Store is the local Nix store of a host.
type Store interface {
	// Realise fetches path and everything it needs from the given caches and keeps it
	// with a garbage-collector root. It never builds. A path that is already valid is
	// only rooted, whoever put it there: see VerifyToplevel.
	Realise(ctx context.Context, path StorePath, opts RealiseOptions) error

	// Valid reports whether path is registered as valid.
	Valid(ctx context.Context, path StorePath) (bool, error)

	// Info returns what the store has registered about a valid path. The error is
	// ErrNotValid for any other.
	Info(ctx context.Context, path StorePath) (PathInfo, error)

	// AddRoot keeps a valid path from being garbage-collected. A root of that name moves
	// to path.
	AddRoot(ctx context.Context, name string, path StorePath) error

	// RemoveRoot gives the root up. Without such a root nothing happens.
	RemoveRoot(ctx context.Context, name string) error

	// Physical returns where the path lies on this machine's file system.
	Physical(path StorePath) string
}

// RealiseOptions says how to fetch a path.
type RealiseOptions struct {
	// Root is the name of the garbage-collector root that keeps the path: letters,
	// digits, dot, dash and underscore, at most 128. Required.
	Root string

	// Caches are the URLs of the binary caches, best first. At least one.
	Caches []string

	// PublicKeys are the keys that paths have to be signed with, unless they are named
	// by their contents. At least one.
	PublicKeys []string

	// Progress is called when the numbers change, from another goroutine and often: it
	// must return at once. Optional.
	Progress func(FetchProgress)
}

// FetchProgress is how far a fetch is.
type FetchProgress struct {
	// PathsDone and PathsTotal count store paths that have to be fetched. The total
	// grows while the closure is being explored.
	PathsDone, PathsTotal int64

	// BytesDone and BytesTotal count what is downloaded, compressed.
	BytesDone, BytesTotal int64
}

// Profile is the system profile: the chain of generations that boot entries are made
// from.
type Profile interface {
	// Current returns the system that the profile is set to and the number of its
	// generation. The error is ErrNoProfile if it was never set.
	Current(ctx context.Context) (StorePath, int64, error)

	// Set makes path the newest generation and the current one. Setting the current
	// system again makes no new generation.
	Set(ctx context.Context, path StorePath) error

	// State returns all that Restore needs. A profile that does not exist has a state
	// too: the zero value.
	State(ctx context.Context) (ProfileState, error)

	// Restore puts the profile back to an earlier state and deletes the generations made
	// since. Restoring twice changes nothing.
	Restore(ctx context.Context, state ProfileState) error
}

// ProfileState is what a profile was at some moment. It is written to disk by those who
// change the profile, before they do.
type ProfileState struct {
	// Path is the system; empty if there was no profile.
	Path StorePath `json:"path,omitempty"`

	// Generation is its number; 0 if there was no profile.
	Generation int64 `json:"generation,omitempty"`

	// Newest is the highest number of any generation, which differs from Generation
	// after someone went back.
	Newest int64 `json:"newest,omitempty"`
}

// Option changes how the commands of Nix are run.
type Option func(*commands)

// WithStateDir sets the directory for Nix's caches and for what Nix puts into a home
// directory. Default: <root>/var/lib/nixfleet.
func WithStateDir(dir string) Option {
	return func(c *commands) { c.stateDir = dir }
}

// WithConfDir sets the directory of nix.conf. Default: the system's, /etc/nix.
func WithConfDir(dir string) Option {
	return func(c *commands) { c.confDir = dir }
}

// WithBinDir sets the directory that the commands of Nix lie in. Default: they are looked
// up in PATH.
func WithBinDir(dir string) Option {
	return func(c *commands) { c.binDir = dir }
}

// physical is where path lies when the file system of the host begins at root.
func physical(root string, path StorePath) string {
	return filepath.Join(root, string(path))
}
