// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package nix

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseSignatures(t *testing.T) {
	base := strings.TrimPrefix(testPath, "/nix/store/")
	sigs := []string{"a:AAAA", "b:BBBB"}
	cases := []struct {
		name, in string
		want     []string
		missing  bool
		bad      bool
	}{
		{"2.8", `[{"path":"` + testPath + `","narSize":1,"signatures":["a:AAAA","b:BBBB"]}]`, sigs, false, false},
		{"2.8 unsigned", `[{"path":"` + testPath + `","narSize":1}]`, []string{}, false, false},
		{"2.8 missing", `[{"path":"` + testPath + `","valid":false}]`, nil, true, false},
		{"2.19", `{"` + testPath + `":{"narSize":1,"signatures":["a:AAAA","b:BBBB"]}}`, sigs, false, false},
		{"2.19 missing", `{"` + testPath + `":null}`, nil, true, false},
		{"2.23 nulls", `{"` + testPath + `":{"deriver":null,"signatures":["a:AAAA","b:BBBB"]}}`, sigs, false, false},
		{"2.33", `{"version":2,"storeDir":"/nix/store","info":{"` + base + `":{"signatures":["a:AAAA","b:BBBB"]}}}`, sigs, false, false},
		{"2.35", `{"version":3,"info":{"` + base + `":{"signatures":[{"keyName":"a","sig":"AAAA"},{"keyName":"b","sig":"BBBB"}]}}}`, sigs, false, false},
		{"other path", `[{"path":"/nix/store/7gx4kiv5m0i7d7qkixq2cwzbr10lvxwc-glibc-2.27","signatures":["a:AAAA"]}]`, nil, true, false},
		{"empty", ``, nil, false, true},
		{"text", `warning: deprecated`, nil, false, true},
		{"number as signature", `[{"path":"` + testPath + `","signatures":[1]}]`, nil, false, true},
		{"list as info", `{"info":[]}`, nil, false, true},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			got, err := parseSignatures([]byte(tc.in), testPath)
			if missing := errors.Is(err, ErrNotValid); missing != tc.missing {
				t.Fatalf("error %v", err)
			}
			if failed := err != nil; failed != (tc.bad || tc.missing) {
				t.Fatalf("error %v", err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}
