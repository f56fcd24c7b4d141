// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package nix

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/nix-community/go-nix/pkg/narinfo/signature"
)

var (
	// ErrUntrusted means that no trusted key signed a path.
	ErrUntrusted = errors.New("no trusted signature")

	// ErrNoKeys means that a list of keys is empty where trust is needed.
	ErrNoKeys = errors.New("no public key is configured")
)

// Strict, because the decoder below skips line breaks, and because Nix splits its list
// of keys at white space.
var publicKeyPattern = regexp.MustCompile(`^[^:\s[:cntrl:]]{1,200}:[A-Za-z0-9+/]{43}=$`)

// PublicKeys are keys whose signatures are obeyed. No two have the same name.
type PublicKeys []signature.PublicKey

// ParsePublicKeys reads keys as Nix prints them: a name, a colon and base64. A repeated
// key counts once. Errors: an empty list (ErrNoKeys), a malformed key, two different
// keys of one name, of which a signature could not say which it is by.
func ParsePublicKeys(keys []string) (PublicKeys, error) {
	if len(keys) == 0 {
		return nil, ErrNoKeys
	}
	parsed := make(PublicKeys, 0, len(keys))
	for _, s := range keys {
		if !publicKeyPattern.MatchString(s) {
			return nil, fmt.Errorf("public key %q is not of the form NAME:BASE64 with 32 bytes", shorten(s))
		}
		key, err := signature.ParsePublicKey(s)
		if err != nil {
			return nil, fmt.Errorf("public key %q: %w", s, err)
		}
		n := slices.IndexFunc(parsed, func(other signature.PublicKey) bool { return other.Name == key.Name })
		if n < 0 {
			parsed = append(parsed, key)
			continue
		}
		if !parsed[n].Data.Equal(key.Data) {
			return nil, fmt.Errorf("two different public keys are named %q: give each key a name of its own", key.Name)
		}
	}
	return parsed, nil
}

// Strings are the keys as Nix reads them.
func (k PublicKeys) Strings() []string {
	s := make([]string, len(k))
	for n, key := range k {
		s[n] = key.String()
	}
	return s
}

// Names are the names of the keys.
func (k PublicKeys) Names() []string {
	names := make([]string, len(k))
	for n, key := range k {
		names[n] = key.Name
	}
	return names
}

// Verify reports whether one of the signatures over the fingerprint is by one of the
// keys. Signatures that cannot be read are passed over: anyone can add one to a path,
// and that must not hide a good one.
func (k PublicKeys) Verify(fingerprint string, signatures []string) bool {
	for _, s := range signatures {
		sig, err := signature.ParseSignature(s)
		if err != nil {
			continue
		}
		for _, key := range k {
			if key.Verify(fingerprint, sig) {
				return true
			}
		}
	}
	return false
}

// VerifyToplevel checks that one of keys signed the system with this registration. The
// signatures are those of the registration and extraSigs, which caches served; both are
// checked against the facts of the local registration, so a cache cannot vouch for
// contents other than those on disk.
//
// There is no exemption. Nix itself asks no signature of content-addressed paths nor of
// paths that are valid already: either would let anyone who can name a path choose what
// a host runs.
//
// The error wraps ErrUntrusted and says which keys were seen and which are trusted.
func VerifyToplevel(info PathInfo, extraSigs []string, keys PublicKeys) error {
	if len(keys) == 0 {
		return fmt.Errorf("%w on %s: %w", ErrUntrusted, info.Path, ErrNoKeys)
	}
	all := slices.Concat(info.Signatures, extraSigs)
	if keys.Verify(info.Fingerprint(), all) {
		return nil
	}
	err := fmt.Errorf("%w on %s: %s; trusted: %s", ErrUntrusted, info.Path, DescribeSignatures(all, keys), strings.Join(keys.Names(), ", "))
	if info.SignaturesErr != nil {
		return fmt.Errorf("%w (the store's own signatures could not be read: %w)", err, info.SignaturesErr)
	}
	return err
}

// DescribeSignatures says in a few words why none of the signatures convinced. Key names
// come from a cache, so they are quoted and few.
func DescribeSignatures(signatures []string, keys PublicKeys) string {
	trusted := keys.Names()
	var matching, foreign []string
	for _, s := range signatures {
		name, _, found := strings.Cut(s, ":")
		switch {
		case !found:
			name = "malformed"
			fallthrough
		case !slices.Contains(trusted, name):
			foreign = append(foreign, name)
		default:
			matching = append(matching, name)
		}
	}
	switch {
	case len(matching) > 0:
		return "the signature by " + quoteNames(matching) + " is not valid for these contents and references"
	case len(foreign) > 0:
		return "it is signed by " + quoteNames(foreign) + " only"
	default:
		return "it is not signed"
	}
}

func quoteNames(names []string) string {
	const most, longest = 3, 64
	slices.Sort(names)
	names = slices.Compact(names)
	quoted := make([]string, 0, most+1)
	for n, name := range names {
		if n == most {
			quoted = append(quoted, fmt.Sprintf("%d more", len(names)-most))
			break
		}
		if len(name) > longest {
			name = name[:longest]
		}
		quoted = append(quoted, fmt.Sprintf("%q", name))
	}
	return strings.Join(quoted, ", ")
}
