// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package gateway

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The reference lists every cause of a refusal, every metric and every request.
func TestReferenceIsComplete(t *testing.T) {
	read := func(path ...string) string {
		data, err := os.ReadFile(filepath.Join(path...))
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	reference := read("..", "..", "docs", "reference", "gateway.md")
	terms := 0
	for file, pattern := range map[string]string{
		"refusal.go": `cause = "([a-z_]+)"`,
		filepath.Join("..", "metrics", "table.go"): `"(nixfleet_gateway_[a-z_]+)"`,
	} {
		for _, match := range regexp.MustCompile(pattern).FindAllStringSubmatch(read(file), -1) {
			terms++
			if !strings.Contains(reference, "`"+match[1]+"`") {
				t.Errorf("docs/reference/gateway.md does not explain %s", match[1])
			}
		}
	}
	if terms < 15 {
		t.Errorf("found %d causes and metrics in the source; the patterns of this test are out of date", terms)
	}
	for a := actionGet; a <= actionCreateEvent; a++ {
		for _, parameter := range a.rule().query {
			if !strings.Contains(reference, "`"+parameter+"`") && !strings.Contains(reference, parameter+"=") {
				t.Errorf("docs/reference/gateway.md does not mention the parameter %s", parameter)
			}
		}
	}
}
