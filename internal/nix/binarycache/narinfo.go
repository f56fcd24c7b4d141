// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package binarycache

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/nix-community/go-nix/pkg/narinfo"
	"github.com/nix-community/go-nix/pkg/nixhash"

	"github.com/nixfleet/nixfleet/internal/nix"
)

const (
	// maxSize bounds the sizes that a cache may claim, to 2 TiB: with it, sums over maxPaths
	// cannot run over.
	maxSize = 1 << 41

	// maxSignatures bounds how many signatures of a path are looked at.
	maxSignatures = 64
)

// Narinfo is what a cache says about a path.
type Narinfo struct {
	nix.PathInfo

	// FileSize is the size of the download, in bytes. The size of the contents if the
	// cache does not tell.
	FileSize uint64

	// CA is the content address; empty for paths named by what they were built from.
	CA string
}

// singleFields are the fields that may stand once; with "Sig" they are all that matter.
var singleFields = []string{
	"StorePath", "URL", "Compression", "FileHash", "FileSize", "NarHash", "NarSize", "References", "Deriver", "CA",
}

// ParseNarinfo reads the narinfo that a cache served for path. As in Nix, unknown fields
// are ignored; everything else has to be right, and has to be about path. Signatures are
// taken as they are: one that cannot be read must not hide a good one.
func ParseNarinfo(data []byte, path nix.StorePath) (Narinfo, error) {
	known, signatures, err := selectFields(data)
	if err != nil {
		return Narinfo{}, err
	}
	parsed, err := narinfo.Parse(bytes.NewReader(known))
	if err != nil {
		return Narinfo{}, err
	}
	if parsed.StorePath != path.String() {
		return Narinfo{}, fmt.Errorf("it is about %q", shorten(parsed.StorePath))
	}
	if parsed.URL == "" || parsed.NarHash == nil || parsed.NarSize == 0 {
		return Narinfo{}, errors.New("URL, NarHash and NarSize have to be set")
	}
	if parsed.NarSize > maxSize || parsed.FileSize > maxSize {
		return Narinfo{}, errors.New("the size is beyond all measure")
	}
	if err := parsed.Check(); err != nil {
		return Narinfo{}, err
	}
	hash, err := nix.FormatNarHash(parsed.NarHash.Format(nixhash.NixBase32, true))
	if err != nil {
		return Narinfo{}, err
	}
	refs, err := parseReferences(parsed.References)
	if err != nil {
		return Narinfo{}, err
	}
	info := Narinfo{
		PathInfo: nix.PathInfo{
			Path: path, NarHash: hash, NarSize: parsed.NarSize, References: refs, Signatures: signatures,
		},
		FileSize: parsed.FileSize,
		CA:       parsed.CA,
	}
	if info.FileSize == 0 {
		info.FileSize = info.NarSize
	}
	return info, nil
}

// selectFields takes the signatures out, and leaves unknown fields out, for which the
// parser would give up.
func selectFields(data []byte) (known []byte, signatures []string, err error) {
	// A domain that was given up often answers every request with a page of its own.
	if !bytes.HasPrefix(data, []byte("StorePath:")) {
		return nil, nil, errors.New("it does not begin with StorePath")
	}
	if !utf8.Valid(data) {
		return nil, nil, errors.New("it is not text")
	}
	seen := make(map[string]bool, len(singleFields))
	for line := range strings.Lines(string(data)) {
		line = strings.TrimRight(line, "\r\n")
		key, value, found := strings.Cut(line, ":")
		if !found {
			if line == "" {
				continue
			}
			return nil, nil, fmt.Errorf("a line has no colon: %q", shorten(line))
		}
		value = strings.TrimSpace(value)
		switch {
		case key == "Sig":
			if len(signatures) < maxSignatures {
				signatures = append(signatures, value)
			}
		case !slices.Contains(singleFields, key):
		case seen[key]:
			return nil, nil, fmt.Errorf("%s is there twice", key)
		default:
			seen[key] = true
			value = strings.Join(strings.Fields(value), " ")
			known = append(known, key+": "+value+"\n"...)
		}
	}
	return known, signatures, nil
}

func parseReferences(names []string) ([]nix.StorePath, error) {
	refs := make([]nix.StorePath, 0, len(names))
	for _, name := range names {
		if name == "" {
			continue
		}
		ref, err := nix.ParseStoreBaseName(name)
		if err != nil {
			return nil, fmt.Errorf("reference: %w", err)
		}
		refs = append(refs, ref)
	}
	slices.Sort(refs)
	return slices.Compact(refs), nil
}

// parseCacheInfo checks the file nix-cache-info: it has to be one, for our store.
func parseCacheInfo(data []byte) error {
	for line := range strings.Lines(string(data)) {
		key, value, found := strings.Cut(line, ":")
		if !found || key != "StoreDir" {
			continue
		}
		if dir := strings.TrimSpace(value); dir != nix.StoreDir {
			return fmt.Errorf("it is for the store %q and not for %s", shorten(dir), nix.StoreDir)
		}
		return nil
	}
	return errors.New("nix-cache-info does not name a StoreDir; is this a binary cache?")
}

func shorten(s string) string {
	const most = 200
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "..."
}
