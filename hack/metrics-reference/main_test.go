// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func read(t *testing.T, page string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", page))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestReferenceIsUpToDate(t *testing.T) {
	for page, tables := range pages() {
		text := read(t, page)
		want, err := fill(text, tables)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(strings.Split(want, "\n"), strings.Split(text, "\n")); diff != "" {
			t.Errorf("%s is out of date; run make metrics-reference (-want +got):\n%s", page, diff)
		}
	}
}

func TestLinksOfTablesLeadSomewhere(t *testing.T) {
	anchors := map[string]bool{}
	for _, heading := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(read(t, "docs/reference/metrics.md"), -1) {
		anchors[strings.ReplaceAll(strings.ToLower(heading[1]), " ", "-")] = true
	}
	links := regexp.MustCompile(`\(metrics\.md#([a-z-]+)\)`).FindAllStringSubmatch(read(t, "docs/reference/events.md"), -1)
	if len(links) == 0 {
		t.Fatal("events.md has no link into metrics.md; the pattern is out of date")
	}
	for _, l := range links {
		if !anchors[l[1]] {
			t.Errorf("metrics.md has no section %s", l[1])
		}
	}
}

func TestFillNeedsItsMarkers(t *testing.T) {
	if _, err := fill("nothing", map[string]string{"metrics": "t"}); err == nil {
		t.Error("a page without markers is taken")
	}
}
