// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package nix

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/nix-community/go-nix/pkg/storepath"
)

// StoreDir is the only store directory that NixFleet works with. Closures built for
// another one have other hashes and cannot be fetched from ordinary caches.
const StoreDir = storepath.StoreDir

const (
	digestLength  = 32
	maxNameLength = 211
)

// ErrInvalidStorePath is wrapped by every error of ParseStorePath.
var ErrInvalidStorePath = errors.New("not a store path")

// StorePath is a path of an object in the Nix store without a subpath, such as
// /nix/store/0c0mmgsdhjxf8x4sjzzqvxw1hxsyqbnd-nixos-system-web-01. A value made by
// ParseStorePath can be joined to a root without leaving it. The zero value is no path.
type StorePath string

// The whole string has to match: parsers that first clean a path take
// "<path>/../../<other>" for a store path.
var pathPattern = regexp.MustCompile(storepath.PathRe.String())

// ParseStorePath checks that s is a store path, whole and exact: no subpath, no "..",
// no relative form, no other store directory.
func ParseStorePath(s string) (StorePath, error) {
	if !pathPattern.MatchString(s) {
		return "", fmt.Errorf("%w: %q; expected %s/<32 characters>-<name>", ErrInvalidStorePath, shorten(s), StoreDir)
	}
	path := StorePath(s)
	if n := len(path.Name()); n > maxNameLength {
		return "", fmt.Errorf("%w: the name of %q has %d characters, at most %d are allowed", ErrInvalidStorePath, shorten(s), n, maxNameLength)
	}
	return path, nil
}

// ParseStoreBaseName is ParseStorePath for the form without the store directory, which
// narinfo files use for references.
func ParseStoreBaseName(s string) (StorePath, error) {
	return ParseStorePath(StoreDir + "/" + s)
}

// Hash is the 32 characters that tell the path apart. Empty for the zero value.
func (p StorePath) Hash() string {
	base := p.Base()
	if len(base) < digestLength {
		return ""
	}
	return base[:digestLength]
}

// Name is what stands behind the hash. Empty for the zero value.
func (p StorePath) Name() string {
	base := p.Base()
	if len(base) <= digestLength {
		return ""
	}
	return base[digestLength+1:]
}

// Base is the path without the store directory.
func (p StorePath) Base() string {
	return strings.TrimPrefix(string(p), StoreDir+"/")
}

// IsDerivation reports whether the path is a build plan, which Nix would build rather
// than fetch.
func (p StorePath) IsDerivation() bool {
	return strings.HasSuffix(string(p), ".drv")
}

// String is the whole path.
func (p StorePath) String() string { return string(p) }

func shorten(s string) string {
	const most = 300
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}
