// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package nix

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/nix-community/go-nix/pkg/nixhash"
)

// PathInfo is what a store or a cache has registered about a valid path.
type PathInfo struct {
	// Path is the path.
	Path StorePath

	// NarHash is the hash of the path's contents in the form that signatures are made
	// over: sha256, a colon and 52 characters of Nix's base-32.
	NarHash string

	// NarSize is the size of the path's contents, in bytes.
	NarSize uint64

	// References are the paths that the contents mention, the path itself included if
	// it does. Sorted, each once.
	References []StorePath

	// Signatures are the registered signatures, each a key name, a colon and base64.
	Signatures []string

	// SignaturesErr says why the registered signatures could not be read. Signatures of
	// caches can still prove the path.
	SignaturesErr error
}

// Fingerprint is the text that signatures of the path are made over.
func (i PathInfo) Fingerprint() string {
	refs := make([]string, len(i.References))
	for n, ref := range i.References {
		refs[n] = ref.String()
	}
	slices.Sort(refs)
	refs = slices.Compact(refs)
	return strings.Join([]string{
		"1", i.Path.String(), i.NarHash, strconv.FormatUint(i.NarSize, 10), strings.Join(refs, ","),
	}, ";")
}

// FormatNarHash brings a NAR hash, in any notation that Nix uses, into the form of
// PathInfo.NarHash. Anything but SHA-256 is refused: Nix signs no other.
func FormatNarHash(s string) (string, error) {
	hash, err := nixhash.ParseAny(s, nil)
	if err != nil {
		return "", fmt.Errorf("NAR hash %q: %w", shorten(s), err)
	}
	if hash.Algo() != nixhash.SHA256 {
		return "", fmt.Errorf("NAR hash %q: expected sha256", shorten(s))
	}
	return hash.Format(nixhash.NixBase32, true), nil
}
