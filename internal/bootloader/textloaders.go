// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package bootloader

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

var (
	grubDefault = regexp.MustCompile(`^set default="?([^"]*)"?$`)
	grubEntry   = regexp.MustCompile(`^menuentry\s+["']([^"']*)["']`)
)

// grub finds the entry that GRUB takes when nobody chooses one. A choice for one boot,
// which "grub-reboot" makes, is none of the default.
func grub(file string) (entry, error) {
	text, err := readConfig(file)
	if err != nil {
		return entry{}, err
	}
	index, known := 0, false
	var entries []entry
	depth := 0
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if m := grubDefault.FindStringSubmatch(line); m != nil && m[1] != "${next_entry}" {
			index, err = strconv.Atoi(m[1])
			known = err == nil
		}
		switch {
		case depth == 0 && strings.HasPrefix(line, "submenu"):
			entries = append(entries, entry{name: "submenu"})
		case depth == 0 && grubEntry.MatchString(line):
			entries = append(entries, entry{name: grubEntry.FindStringSubmatch(line)[1]})
		case strings.HasPrefix(line, "linux") && len(entries) > 0 && depth > 0:
			if e := &entries[len(entries)-1]; e.name != "submenu" {
				e.init = initOf(line)
			}
		}
		if inMenu := depth > 0 || strings.HasPrefix(line, "menuentry") || strings.HasPrefix(line, "submenu"); inMenu {
			depth += braces(line)
		}
	}
	if !known || index < 0 || index >= len(entries) || entries[index].init == "" {
		return entry{}, fmt.Errorf("%w: the default of GRUB is not one of its %d entries that boots a system", errUnclear, len(entries))
	}
	return entries[index], nil
}

// braces is by how much a line goes deeper. Braces of variables, as in ${x}, balance.
func braces(line string) int { return strings.Count(line, "{") - strings.Count(line, "}") }

// extlinux finds the entry that U-Boot and other readers of extlinux.conf take.
func extlinux(file string) (entry, error) {
	text, err := readConfig(file)
	if err != nil {
		return entry{}, err
	}
	wanted, at := "", ""
	found := entry{}
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		value = strings.TrimSpace(value)
		switch strings.ToUpper(key) {
		case "DEFAULT":
			wanted = value
		case "LABEL":
			at = value
		case "APPEND":
			if at == wanted && wanted != "" {
				found.name, found.init = at, initOf(value)
			}
		case "LINUX", "INITRD":
			if p := fileProblem(filepath.Join(filepath.Dir(file), filepath.FromSlash(value)), value); at == wanted && wanted != "" && p != "" {
				found.problem = p
			}
		}
	}
	if found.init == "" {
		return entry{}, fmt.Errorf("%w: extlinux.conf has no entry %q that boots a system", errUnclear, wanted)
	}
	return found, nil
}
