// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package nix

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/nix-community/go-nix/pkg/nixbase32"
	"github.com/nix-community/go-nix/pkg/nixhash"
)

const digestBytes = 20

// VerifyContentAddress checks that path is named by the content address ca and by its
// references, so that whoever downloads it can compare contents with name and needs no
// signature. Where the address is the NAR hash itself that is compared as well; the rest
// of the contents Nix checks when it has them.
//
// Addresses made with MD5 or SHA-1 are refused: others can make contents that fit them.
func VerifyContentAddress(info PathInfo, ca string) error {
	expected, err := contentAddressedPath(info, ca)
	if err != nil {
		return fmt.Errorf("content address %q of %s: %w", shorten(ca), info.Path, err)
	}
	if expected != info.Path {
		return fmt.Errorf("content address %q belongs to %s and not to %s", shorten(ca), expected, info.Path)
	}
	return nil
}

// contentAddressedPath computes the store path from an address of one of the forms
// text:HASH, fixed:HASH (a file) and fixed:r:HASH (a tree).
func contentAddressedPath(info PathInfo, ca string) (StorePath, error) {
	others, self := splitReferences(info)
	if text, ok := strings.CutPrefix(ca, "text:"); ok {
		hash, err := parseAddressHash(text)
		switch {
		case err != nil:
			return "", err
		case hash.Algo() != nixhash.SHA256:
			return "", errors.New("the address of a text has to be SHA-256")
		case self:
			return "", errors.New("a text cannot refer to itself")
		}
		return makeStorePath(pathType("text", others, false), hash, info.Path.Name()), nil
	}
	fixed, ok := strings.CutPrefix(ca, "fixed:")
	if !ok {
		return "", errors.New("the form is not known")
	}
	tree, recursive := strings.CutPrefix(fixed, "r:")
	hash, err := parseAddressHash(tree)
	if err != nil {
		return "", err
	}
	if recursive && hash.Algo() == nixhash.SHA256 {
		if got := hash.Format(nixhash.NixBase32, true); !self && got != info.NarHash {
			return "", fmt.Errorf("the contents have the hash %s", info.NarHash)
		}
		return makeStorePath(pathType("source", others, self), hash, info.Path.Name()), nil
	}
	if len(info.References) > 0 {
		return "", errors.New("an address of this form allows no references")
	}
	method := ""
	if recursive {
		method = "r:"
	}
	inner := sha256.Sum256([]byte("fixed:out:" + method + hash.Format(nixhash.Base16, true) + ":"))
	outer, err := nixhash.NewHash(nixhash.SHA256, inner[:])
	if err != nil {
		return "", err
	}
	return makeStorePath("output:out", outer, info.Path.Name()), nil
}

func parseAddressHash(s string) (*nixhash.Hash, error) {
	hash, err := nixhash.ParseAny(s, nil)
	if err != nil {
		return nil, err
	}
	if hash.Algo() != nixhash.SHA256 && hash.Algo() != nixhash.SHA512 {
		return nil, fmt.Errorf("%s is not safe against forgery", hash.Algo())
	}
	return &hash.Hash, nil
}

func splitReferences(info PathInfo) (others []StorePath, self bool) {
	for _, ref := range info.References {
		if ref == info.Path {
			self = true
		} else {
			others = append(others, ref)
		}
	}
	slices.Sort(others)
	return slices.Compact(others), self
}

func pathType(kind string, refs []StorePath, self bool) string {
	parts := make([]string, 1, len(refs)+2)
	parts[0] = kind
	for _, ref := range refs {
		parts = append(parts, ref.String())
	}
	if self {
		parts = append(parts, "self")
	}
	return strings.Join(parts, ":")
}

// makeStorePath is Nix's rule for names: a hash over kind, content hash, store directory
// and name, folded to 20 bytes.
func makeStorePath(kind string, hash *nixhash.Hash, name string) StorePath {
	text := kind + ":" + hash.Algo().String() + ":" + hex.EncodeToString(hash.Digest()) + ":" + StoreDir + ":" + name
	sum := sha256.Sum256([]byte(text))
	digest := nixbase32.EncodeToString(nixhash.CompressHash(sum[:], digestBytes))
	return StorePath(StoreDir + "/" + digest + "-" + name)
}
