// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package nix

import (
	"strings"
	"testing"
)

// TestVerifyContentAddress has paths and addresses that Nix 2.8 made.
func TestVerifyContentAddress(t *testing.T) {
	const (
		system = "7mbdg5f0zhfkzqim3ns58bv39p3c3kfa-nixos-system-x"
		dep    = "hic7pqzjfm72hcxd5s4x77raa07v8vvb-dep"
		tree   = "asinc35540f0q79m1s9g7ryai30whgxx-tree"
		text   = "2qzxavkmc1a53hdc058phqdqyic53b67-a.txt"
		sysCA  = "fixed:r:sha256:1f6650hqcg8f80w1853v1d6l4nk7zz8rw4hzahlk06w0wja49a3k"
		treeCA = "fixed:r:sha256:0x8rfwm8ahk1g7chxpm8ij2nhvzxiryknb33py3dha2qxw5fkgr9"
		textCA = "text:sha256:1w78gq8ay2cx5y7z4myz3adwhjlclpmm6jf2lmkv2p5hrxnqfd4q"
		fileCA = "fixed:sha256:00xyyr3fi8l6hb839bv3f7yb86yjv7xi1cgh1xnhipym4asvb4aq"
		file   = "gy454w1cxaq731grqwylhzf4pp9r5izh-hello.txt"
	)
	treeHash := strings.TrimPrefix(treeCA, "fixed:r:")
	cases := []struct {
		name    string
		base    string
		refs    []string
		narHash string
		ca      string
		err     string
	}{
		{"tree with a reference to itself", system, []string{system, dep}, "", sysCA, ""},
		{"tree", tree, nil, treeHash, treeCA, ""},
		{"text", text, nil, "", textCA, ""},
		{"text with a reference", "yqclxj11r2vi18yf16grpm5f8xf5csld-b.txt", []string{text}, "",
			"text:sha256:0dknlxhcgrnmgz7a5rqvnrmvfxla7adm3zh1p8vlv1z6yxnn6g88", ""},
		{"file", file, nil, "", fileCA, ""},
		{"file by SHA-512", "9a8mxachqmcv8x2cfijdps9dyxgyyrzm-hello.txt", nil, "",
			"fixed:sha512:0lrc0dwnvipqviibf7qfm1y492qvjwb1zhkcyi05cndmva1mr5gjcgrnz1x36djmk0sfg8djd2n0qv68vib2jg590mwznar9jcjphp7", ""},

		{"SHA-1", "khcbj63jsvcggdn4jfn3n3ddibh3l5yx-tree", nil, "", "fixed:r:sha1:xd5adfpyvmdsp8k8agj23p7hsp140swh", "not safe"},
		{"other contents", tree, nil, "sha256:1xmr8jicvzszfzpz46g37mlpvbzjl2wpwvl2b05psipssyp1sm8h", treeCA, "the contents have the hash"},
		{"other path", dep, nil, treeHash, treeCA, "belongs to"},
		{"reference left out", system, []string{system}, "", sysCA, "belongs to"},
		{"reference added", system, []string{system, dep, text}, "", sysCA, "belongs to"},
		{"reference to itself left out", system, []string{dep}, strings.TrimPrefix(sysCA, "fixed:r:"), sysCA, "belongs to"},
		{"text taken for a file", text, nil, "", strings.Replace(textCA, "text:", "fixed:", 1), "belongs to"},
		{"file with a reference", file, []string{text}, "", fileCA, "allows no references"},
		{"text that refers to itself", text, []string{text}, "", textCA, "cannot refer to itself"},
		{"unknown form", text, nil, "", "magic:sha256:00xyyr3fi8l6hb839bv3f7yb86yjv7xi1cgh1xnhipym4asvb4aq", "form is not known"},
		{"no hash", text, nil, "", "text:", "address"},
		{"empty", text, nil, "", "", "form is not known"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			info := PathInfo{Path: StorePath(StoreDir + "/" + tc.base), NarHash: tc.narHash}
			for _, ref := range tc.refs {
				info.References = append(info.References, StorePath(StoreDir+"/"+ref))
			}
			err := VerifyContentAddress(info, tc.ca)
			if (err == nil) != (tc.err == "") || err != nil && !strings.Contains(err.Error(), tc.err) {
				t.Errorf("got %v, want %q", err, tc.err)
			}
		})
	}
}
