// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package nix

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
)

const testPath = "/nix/store/0c0mmgsdhjxf8x4sjzzqvxw1hxsyqbnd-nixos-system-web-01-26.05"

func TestParseStorePath(t *testing.T) {
	hash := "0c0mmgsdhjxf8x4sjzzqvxw1hxsyqbnd"
	cases := []struct {
		name, in string
		ok       bool
	}{
		{"system", testPath, true},
		{"all characters of a name", "/nix/store/" + hash + "-aZ09+-._?=", true},
		{"longest name", "/nix/store/" + hash + "-" + strings.Repeat("a", 211), true},
		{"empty", "", false},
		{"name too long", "/nix/store/" + hash + "-" + strings.Repeat("a", 212), false},
		{"no name", "/nix/store/" + hash + "-", false},
		{"no dash", "/nix/store/" + hash + "xname", false},
		{"subpath", testPath + "/bin/sh", false},
		{"slash at the end", testPath + "/", false},
		{"goes up inside", "/nix/store/" + hash + "-a/../" + hash + "-b", false},
		{"goes up at the front", "/nix/store/../store/" + hash + "-a", false},
		{"name of dots", "/nix/store/" + hash + "-..", false},
		{"letter e in the hash", "/nix/store/ec0mmgsdhjxf8x4sjzzqvxw1hxsyqbnd-a", false},
		{"upper case in the hash", "/nix/store/" + strings.ToUpper(hash) + "-a", false},
		{"short hash", "/nix/store/" + hash[1:] + "-a", false},
		{"other store", "/gnu/store/" + hash + "-a", false},
		{"longer prefix", "/nix/storex" + hash + "-a", false},
		{"relative", "nix/store/" + hash + "-a", false},
		{"double slash", "//nix/store/" + hash + "-a", false},
		{"line break at the end", testPath + "\n", false},
		{"line break in front", "\n" + testPath, false},
		{"NUL", testPath + "\x00", false},
		{"option", "--option", false},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			path, err := ParseStorePath(tc.in)
			if tc.ok != (err == nil) {
				t.Fatalf("ParseStorePath(%q) = %q, %v", tc.in, path, err)
			}
			if err != nil {
				if !errors.Is(err, ErrInvalidStorePath) || path != "" {
					t.Errorf("got %q, %v", path, err)
				}
				return
			}
			if path.String() != tc.in || path.Hash() != hash || path.Hash()+"-"+path.Name() != path.Base() {
				t.Errorf("parts of %q: hash %q, name %q, base %q", path, path.Hash(), path.Name(), path.Base())
			}
		})
	}
}

func TestZeroStorePath(t *testing.T) {
	var zero StorePath
	if zero.Hash() != "" || zero.Name() != "" || zero.IsDerivation() {
		t.Error("the zero value has parts")
	}
}

// FuzzParseStorePath: whatever is accepted cannot leave a root that it is joined to.
func FuzzParseStorePath(f *testing.F) {
	f.Add(testPath)
	f.Add(testPath + "/../x")
	f.Add("/nix/store/..")
	f.Fuzz(func(t *testing.T, s string) {
		path, err := ParseStorePath(s)
		if err != nil {
			return
		}
		if joined := filepath.Join("/root", path.String()); joined != "/root"+s || filepath.Dir(joined) != "/root/nix/store" {
			t.Errorf("%q leaves its place: %q", s, joined)
		}
	})
}
