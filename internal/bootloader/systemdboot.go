// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package bootloader

import (
	"cmp"
	"debug/pe"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
)

// The loader writes and reads this EFI variable, see systemd-boot(7) and the Boot Loader
// Interface.
const entryDefaultVariable = "sys/firmware/efi/efivars/LoaderEntryDefault-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"

// systemdBoot finds the entry that systemd-boot takes when nobody chooses one.
func systemdBoot(root, esp string) (entry, error) {
	pattern, err := defaultPattern(root, esp)
	if err != nil {
		return entry{}, err
	}
	names, err := entryNames(esp)
	if err != nil {
		return entry{}, err
	}
	names = slices.DeleteFunc(names, func(name string) bool {
		matches, err := path.Match(pattern, entryID(name))
		return err != nil || !matches
	})
	if len(names) == 0 {
		return entry{}, fmt.Errorf("%w: no entry matches the default %q", errUnclear, pattern)
	}
	// Of several the newest is taken: all entries of NixOS have the same sort key, and
	// their versions begin with the generation.
	slices.SortStableFunc(names, func(a, b string) int { return cmp.Compare(generation(b), generation(a)) })
	if strings.HasSuffix(names[0], ".efi") {
		return imageEntry(esp, names[0])
	}
	return textEntry(esp, names[0])
}

// defaultPattern is the glob for the id of the default entry. The EFI variable, which
// "bootctl set-default" sets, wins over the file.
func defaultPattern(root, esp string) (string, error) {
	pattern, err := variable(filepath.Join(root, entryDefaultVariable))
	if err != nil {
		return "", err
	}
	if pattern == "" {
		text, err := readConfig(filepath.Join(esp, "loader", "loader.conf"))
		if err != nil {
			return "", err
		}
		for line := range strings.Lines(text) {
			if fields := strings.Fields(line); len(fields) == 2 && fields[0] == "default" {
				pattern = fields[1]
			}
		}
	}
	if pattern == "" || strings.HasPrefix(pattern, "@") {
		return "", fmt.Errorf("%w: the default of systemd-boot is %q", errUnclear, pattern)
	}
	return pattern, nil
}

// variable is the text of an EFI variable: UTF-16 behind four bytes of attributes. Empty
// if it is not set.
func variable(file string) (string, error) {
	raw, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil || len(raw) < 4 || len(raw)%2 != 0 {
		return "", fmt.Errorf("%w: %s cannot be read: %w", errUnclear, file, err)
	}
	var units []uint16
	for raw = raw[4:]; len(raw) > 0; raw = raw[2:] {
		if unit := binary.LittleEndian.Uint16(raw); unit != 0 {
			units = append(units, unit)
		}
	}
	return string(utf16.Decode(units)), nil
}

func entryNames(esp string) ([]string, error) {
	var names []string
	for directory, suffix := range map[string]string{"loader/entries": ".conf", "EFI/Linux": ".efi"} {
		found, err := os.ReadDir(filepath.Join(esp, directory))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("read the boot entries: %w", err)
		}
		for _, f := range found {
			if strings.HasSuffix(f.Name(), suffix) {
				names = append(names, f.Name())
			}
		}
	}
	slices.Sort(names)
	return names, nil
}

var tries = regexp.MustCompile(`\+[0-9]+(-[0-9]+)?(\.conf|\.efi)$`)

// entryID is the name of an entry's file without the boot counter.
func entryID(name string) string { return tries.ReplaceAllString(name, "$2") }

var generationNumber = regexp.MustCompile(`^nixos-generation-([0-9]+)`)

// generation is the generation in the name of an entry; -1 if it has none.
func generation(name string) int64 {
	m := generationNumber.FindStringSubmatch(name)
	if m == nil {
		return -1
	}
	n, err := strconv.ParseInt(m[1], 10, 64)
	if err != nil {
		return -1
	}
	return n
}

// textEntry reads an entry of the Boot Loader Specification, type 1.
func textEntry(esp, name string) (entry, error) {
	text, err := readConfig(filepath.Join(esp, "loader", "entries", name))
	if err != nil {
		return entry{}, err
	}
	e := entry{name: name}
	kernel := false
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		value = strings.TrimSpace(value)
		switch key {
		case "linux", "initrd":
			kernel = kernel || key == "linux"
			if p := fileProblem(filepath.Join(esp, filepath.FromSlash(value)), value); p != "" {
				e.problem = p
			}
		case "options":
			e.init = cmp.Or(initOf(value), e.init)
		}
	}
	if !kernel && e.problem == "" {
		e.problem = "it names no kernel"
	}
	if e.init == "" {
		return e, fmt.Errorf("%w: entry %s has no init=", errUnclear, name)
	}
	return e, nil
}

// maxCommandLine bounds what is read of an image: no command line is longer.
const maxCommandLine = 64 << 10

// imageEntry reads a unified kernel image, which is a PE program with its command line in
// a section.
func imageEntry(esp, name string) (entry, error) {
	image, err := pe.Open(filepath.Join(esp, "EFI", "Linux", name))
	if err != nil {
		return entry{}, fmt.Errorf("%w: image %s cannot be read: %w", errUnclear, name, err)
	}
	defer func() { _ = image.Close() }() // it was only read
	section := image.Section(".cmdline")
	if section == nil || section.Size > maxCommandLine {
		return entry{}, fmt.Errorf("%w: image %s has no command line", errUnclear, name)
	}
	text, err := section.Data()
	if err != nil {
		return entry{}, fmt.Errorf("%w: image %s cannot be read: %w", errUnclear, name, err)
	}
	init := initOf(strings.Trim(string(text), "\x00"))
	if init == "" {
		return entry{}, fmt.Errorf("%w: image %s has no init=", errUnclear, name)
	}
	return entry{name: name, init: init}, nil
}
