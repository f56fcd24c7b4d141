// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package nix

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/nix-community/go-nix/pkg/narinfo/signature"
	"pgregory.net/rapid"
)

type testKey struct{ signature.SecretKey }

func newTestKey(t testing.TB, name string) testKey {
	t.Helper()
	secret, _, err := signature.GenerateKeypair(name, nil)
	if err != nil {
		t.Fatal(err)
	}
	return testKey{secret}
}

func (k testKey) public() string { return k.ToPublicKey().String() }

func (k testKey) sign(t testing.TB, info PathInfo) string {
	t.Helper()
	sig, err := k.Sign(nil, info.Fingerprint())
	if err != nil {
		t.Fatal(err)
	}
	return sig.String()
}

func testInfo() PathInfo {
	return PathInfo{
		Path:    testPath,
		NarHash: "sha256:0lxjvvpr59c2mdram7ympy5ay741f180kv3349hvfc3f8nrmbqf6",
		NarSize: 464152,
		References: []StorePath{
			"/nix/store/7gx4kiv5m0i7d7qkixq2cwzbr10lvxwc-glibc-2.27",
			testPath,
		},
	}
}

func TestParsePublicKeys(t *testing.T) {
	a, b, otherA := newTestKey(t, "a"), newTestKey(t, "b"), newTestKey(t, "a")
	cases := []struct {
		name string
		in   []string
		want []string
		err  string
	}{
		{"one", []string{a.public()}, []string{a.public()}, ""},
		{"repeated", []string{a.public(), b.public(), a.public()}, []string{a.public(), b.public()}, ""},
		{"none", nil, nil, "no public key"},
		{"one name, two keys", []string{a.public(), otherA.public()}, nil, `named "a"`},
		{"no name", []string{":" + strings.SplitN(a.public(), ":", 2)[1]}, nil, "not of the form"},
		{"secret key", []string{a.String()}, nil, "not of the form"},
		{"two keys in one", []string{a.public() + " " + b.public()}, nil, "not of the form"},
		{"line break", []string{a.public() + "\n"}, nil, "not of the form"},
		{"line break inside", []string{a.public()[:10] + "\n" + a.public()[10:]}, nil, "not of the form"},
		{"good and bad", []string{a.public(), "b:AAAA"}, nil, "not of the form"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			keys, err := ParsePublicKeys(tc.in)
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) || keys != nil {
					t.Fatalf("got %v, %v; want an error with %q", keys, err, tc.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, keys.Strings()); diff != "" {
				t.Errorf("keys (-want +got):\n%s", diff)
			}
		})
	}
}

func TestVerifyToplevel(t *testing.T) {
	trusted, other, impostor := newTestKey(t, "fleet"), newTestKey(t, "other"), newTestKey(t, "fleet")
	keys, err := ParsePublicKeys([]string{trusted.public()})
	if err != nil {
		t.Fatal(err)
	}
	info := testInfo()
	good := trusted.sign(t, info)
	cases := []struct {
		name   string
		local  []string
		extra  []string
		change func(*PathInfo)
		want   string // "" is trusted
	}{
		{name: "registered", local: []string{good}},
		{name: "from a cache", extra: []string{good}},
		{name: "behind others", local: []string{other.sign(t, info), "garbage", "fleet:AAAA", impostor.sign(t, info)}, extra: []string{good}},
		{name: "unsigned", want: "it is not signed"},
		{name: "by another key", local: []string{other.sign(t, info)}, want: `signed by "other" only`},
		{name: "by another key of that name", extra: []string{impostor.sign(t, info)}, want: "is not valid for these contents"},
		{name: "other contents", local: []string{good}, change: func(i *PathInfo) {
			i.NarHash = "sha256:1b4sb93wp679q4zx9k1ignby1yna3z7c4c2ri3wphylbc2dwsys0"
		}, want: "is not valid"},
		{name: "other size", local: []string{good}, change: func(i *PathInfo) { i.NarSize++ }, want: "is not valid"},
		{name: "reference left out", local: []string{good}, change: func(i *PathInfo) { i.References = i.References[:1] }, want: "is not valid"},
		{name: "other path", local: []string{good}, change: func(i *PathInfo) { i.Path += "x" }, want: "is not valid"},
		{name: "references in another order", local: []string{good}, change: func(i *PathInfo) {
			i.References = []StorePath{i.References[1], i.References[0], i.References[1]}
		}},
		{name: "unreadable registration", change: func(i *PathInfo) { i.SignaturesErr = errors.New("disk on fire") }, want: "disk on fire"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			info := testInfo()
			info.Signatures = tc.local
			if tc.change != nil {
				tc.change(&info)
			}
			err := VerifyToplevel(info, tc.extra, keys)
			if tc.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if !errors.Is(err, ErrUntrusted) || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), info.Path.String()) {
				t.Errorf("got %v; want ErrUntrusted with %q and the path", err, tc.want)
			}
		})
	}
	t.Run("no keys", func(t *testing.T) {
		info := testInfo()
		info.Signatures = []string{good}
		if err := VerifyToplevel(info, nil, nil); !errors.Is(err, ErrUntrusted) || !errors.Is(err, ErrNoKeys) {
			t.Errorf("got %v", err)
		}
	})
}

// TestNoForgery: no list of signatures made by other keys or over other facts convinces.
func TestNoForgery(t *testing.T) {
	trusted, impostor := newTestKey(t, "fleet"), newTestKey(t, "fleet")
	keys, err := ParsePublicKeys([]string{trusted.public()})
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(r *rapid.T) {
		info := testInfo()
		forged := rapid.SliceOf(rapid.OneOf(
			rapid.String(),
			rapid.Just(impostor.sign(t, info)),
			rapid.Map(rapid.Uint64Range(1, 1<<40), func(size uint64) string {
				other := info
				other.NarSize += size
				return trusted.sign(t, other)
			}),
		)).Draw(r, "signatures")
		if err := VerifyToplevel(info, forged, keys); !errors.Is(err, ErrUntrusted) {
			r.Fatalf("trusted: %v", err)
		}
		at := rapid.IntRange(0, len(forged)).Draw(r, "at")
		good := append(append(append([]string{}, forged[:at]...), trusted.sign(t, info)), forged[at:]...)
		if err := VerifyToplevel(info, good, keys); err != nil {
			r.Fatalf("a good signature was hidden by others: %v", err)
		}
	})
}

func TestFormatNarHash(t *testing.T) {
	const want = "sha256:1b8m03r63zqhnjf7l5wnldhh7c134ap5vpj0850ymkq1iyzicy5s"
	for _, in := range []string{
		want,
		"sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
		"sha256-ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=",
	} {
		if got, err := FormatNarHash(in); err != nil || got != want {
			t.Errorf("FormatNarHash(%q) = %q, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "sha256:", "sha1:a9993e364706816aba3e25717850c26c9cd0d89d", "sha256:zz", want + "0"} {
		if got, err := FormatNarHash(in); err == nil {
			t.Errorf("FormatNarHash(%q) = %q, want an error", in, got)
		}
	}
}
