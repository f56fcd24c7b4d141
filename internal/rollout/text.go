// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package rollout

import (
	"fmt"
	"slices"
	"strings"
)

// plural is a number with its noun: "1 host", "2 hosts".
func plural[N int | int32](n N, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// verb is a number with the phrase that fits it: "1 host is", "2 hosts are".
func verb(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// sample names the first few of a list.
func sample(names []string) string {
	const most = 3
	slices.Sort(names)
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}

// truncate cuts a text to at most n characters.
func truncate(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return s
}

// finishing tells of hosts in flight, as a part of a message; nothing if there are none.
func finishing(n int32) string {
	if n == 0 {
		return ""
	}
	return "; " + verb(int(n), "host in flight finishes", "hosts in flight finish")
}
