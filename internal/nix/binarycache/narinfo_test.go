// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package binarycache

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nixfleet/nixfleet/internal/nix"
)

const (
	samplePath = nix.StorePath("/nix/store/sm3am2n802a4fbc96m39byqx39chl4kp-nixos-system-x")
	sampleDep  = nix.StorePath("/nix/store/dqh9lqb3abv90ziv5mf2hxrbvf2ibihw-dep")
	sampleKey  = "k1:DSGOGzNQQ+wWx68IyVGGxlQj3LZI2nRBPpwRynSuY5OPY2+Z2/UAJ5mz4pvRWKXN71Yi67onrK+rvoEeNnXDCg=="

	// sample was made by Nix 2.8.
	sample = `StorePath: /nix/store/sm3am2n802a4fbc96m39byqx39chl4kp-nixos-system-x
URL: nar/02w00r5k4nbsqigmjal4czn1q7ar7ssl3hcwhflifx4mnj425h2p.nar.xz
Compression: xz
FileHash: sha256:02w00r5k4nbsqigmjal4czn1q7ar7ssl3hcwhflifx4mnj425h2p
FileSize: 284
NarHash: sha256:0ria7wivvfqd2sn4wka6qdvsvpzx9cdpnyhpqn8r094w21k0bv47
NarSize: 744
References: sm3am2n802a4fbc96m39byqx39chl4kp-nixos-system-x dqh9lqb3abv90ziv5mf2hxrbvf2ibihw-dep
Deriver: 8ch068wj566m044pss90vd0dxk2gsavc-nixos-system-x.drv
Sig: ` + sampleKey + "\n"
)

func sampleInfo() Narinfo {
	return Narinfo{
		PathInfo: nix.PathInfo{
			Path: samplePath, NarSize: 744,
			NarHash:    "sha256:0ria7wivvfqd2sn4wka6qdvsvpzx9cdpnyhpqn8r094w21k0bv47",
			References: []nix.StorePath{sampleDep, samplePath},
			Signatures: []string{sampleKey},
		},
		FileSize: 284,
	}
}

func without(prefix string) string {
	var b strings.Builder
	for line := range strings.Lines(sample) {
		if !strings.HasPrefix(line, prefix) {
			b.WriteString(line)
		}
	}
	return b.String()
}

func replaced(prefix, line string) string {
	var b strings.Builder
	for l := range strings.Lines(sample) {
		if strings.HasPrefix(l, prefix) {
			l = line + "\n"
		}
		b.WriteString(l)
	}
	return b.String()
}

func TestParseNarinfoAccepts(t *testing.T) {
	changed := func(change func(*Narinfo)) Narinfo {
		info := sampleInfo()
		change(&info)
		return info
	}
	cases := []struct {
		name, in string
		want     Narinfo
	}{
		{"as Nix writes it", sample, sampleInfo()},
		{"Windows line ends", strings.ReplaceAll(sample, "\n", "\r\n"), sampleInfo()},
		{"unknown field", sample + "Future: a: b: c\n", sampleInfo()},
		{"unknown deriver", replaced("Deriver", "Deriver: unknown-deriver"), sampleInfo()},
		{"hash in another notation", replaced("NarHash", "NarHash: sha256-h+wFZhCcJJCRxRd6extL/d+td8NGTU6sFg27vSM/KmY="), sampleInfo()},
		{"no size of the file", without("FileSize"), changed(func(i *Narinfo) { i.FileSize = 744 })},
		{"no references", replaced("References", "References: "), changed(func(i *Narinfo) { i.References = []nix.StorePath{} })},
		{"references with gaps", replaced("References", "References:  dqh9lqb3abv90ziv5mf2hxrbvf2ibihw-dep  sm3am2n802a4fbc96m39byqx39chl4kp-nixos-system-x "), sampleInfo()},
		{"no signature", without("Sig"), changed(func(i *Narinfo) { i.Signatures = nil })},
		{"odd signature in front", replaced("Sig", "Sig: nonsense\nSig: "+sampleKey),
			changed(func(i *Narinfo) { i.Signatures = []string{"nonsense", sampleKey} })},
		{"content address", sample + "CA: fixed:r:sha256:abc\n", changed(func(i *Narinfo) { i.CA = "fixed:r:sha256:abc" })},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			got, err := ParseNarinfo([]byte(tc.in), samplePath)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("narinfo (-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseNarinfoRefuses(t *testing.T) {
	cases := []struct{ name, in, want string }{
		{"empty", "", "does not begin"},
		{"HTML", "<!doctype html><title>for sale</title>", "does not begin"},
		{"another path", strings.Replace(sample, "sm3am2n802a4fbc96m39byqx39chl4kp", "dqh9lqb3abv90ziv5mf2hxrbvf2ibihw", 1), "it is about"},
		{"another name", strings.Replace(sample, "system-x\n", "system-y\n", 1), "it is about"},
		{"path twice", strings.Replace(sample, "URL:", "StorePath: "+string(sampleDep)+"\nURL:", 1), "twice"},
		{"hash twice", sample + "NarHash: sha256:0ria7wivvfqd2sn4wka6qdvsvpzx9cdpnyhpqn8r094w21k0bv47\n", "twice"},
		{"no URL", without("URL"), "have to be set"},
		{"no hash", without("NarHash"), "have to be set"},
		{"no size", without("NarSize"), "have to be set"},
		{"size 0", replaced("NarSize", "NarSize: 0"), "have to be set"},
		{"negative size", replaced("NarSize", "NarSize: -1"), "invalid syntax"},
		{"size in words", replaced("NarSize", "NarSize: many"), "invalid syntax"},
		{"size beyond 64 bits", replaced("NarSize", "NarSize: 99999999999999999999"), "out of range"},
		{"size beyond measure", replaced("NarSize", "NarSize: 9999999999999999"), "beyond all measure"},
		{"hash with another algorithm", replaced("NarHash", "NarHash: md5:d41d8cd98f00b204e9800998ecf8427e"), "expected sha256"},
		{"hash cut off", replaced("NarHash", "NarHash: sha256:0ria7"), "unknown encoding"},
		{"reference that leaves the store", replaced("References", "References: ../../etc/passwd"), "Reference"},
		{"reference with a path", replaced("References", "References: "+string(sampleDep)), "Reference"},
		{"deriver that is no path", replaced("Deriver", "Deriver: x"), "Deriver"},
		{"line without a colon", sample + "garbage\n", "no colon"},
		{"NUL", sample + "\x00\n", "no colon"},
		{"not text", strings.Replace(sample, "xz\n", "\xff\n", 1), "not text"},
		{"uncompressed and of another size", replaced("Compression", "Compression: none"), "differ"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			got, err := ParseNarinfo([]byte(tc.in), samplePath)
			if err == nil {
				t.Fatalf("accepted: %+v", got)
			}
			if !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %q, want %q", err, tc.want)
			}
		})
	}
}

func TestParseCacheInfo(t *testing.T) {
	cases := []struct{ name, in, want string }{
		{"as Nix writes it", "StoreDir: /nix/store\n", ""},
		{"with more", "Future: x\nWantMassQuery: 1\nPriority: 30\nStoreDir: /nix/store\r\n", ""},
		{"another store", "StoreDir: /gnu/store\n", "is for the store"},
		{"a path inside", "StoreDir: /nix/store/x\n", "is for the store"},
		{"HTML", "<html>\n<body>hello: world</body>", "does not name a StoreDir"},
		{"empty", "", "does not name a StoreDir"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			err := parseCacheInfo([]byte(tc.in))
			if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

// FuzzParseNarinfo: whatever is accepted is about the path that was asked for, and has
// everything that a signature is made over.
func FuzzParseNarinfo(f *testing.F) {
	f.Add([]byte(sample))
	f.Add([]byte(without("Sig")))
	f.Add([]byte(sample + "CA: fixed:r:sha256:1f6650hqcg8f80w1853v1d6l4nk7zz8rw4hzahlk06w0wja49a3k\n"))
	f.Add([]byte(replaced("References", "References: ../x")))
	f.Add([]byte("StorePath:\n"))
	f.Add([]byte("<html>"))
	f.Fuzz(func(t *testing.T, data []byte) {
		info, err := ParseNarinfo(data, samplePath)
		if err != nil {
			return
		}
		if info.Path != samplePath || info.NarSize == 0 || info.FileSize == 0 {
			t.Fatalf("accepted %+v", info)
		}
		if hash, err := nix.FormatNarHash(info.NarHash); err != nil || hash != info.NarHash {
			t.Fatalf("NAR hash %q", info.NarHash)
		}
		for _, ref := range info.References {
			if _, err := nix.ParseStorePath(ref.String()); err != nil {
				t.Fatal(err)
			}
		}
		if strings.Contains(info.Fingerprint(), "\n") {
			t.Fatal("the fingerprint has a line break")
		}
		gradeCopy("http://c", info, nil)
	})
}
