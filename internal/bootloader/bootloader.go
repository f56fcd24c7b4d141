// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package bootloader

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/nixfleet/nixfleet/internal/nix"
)

// Loader is a boot loader.
type Loader string

// Loaders that are understood.
const (
	// SystemdBoot also stands for lanzaboote, which installs systemd-boot and puts signed
	// images beside it.
	SystemdBoot Loader = "systemd-boot"
	GRUB        Loader = "GRUB"
	Extlinux    Loader = "extlinux"
	// Unknown is none of them, or several at once.
	Unknown Loader = "unknown"
)

// Verdict says whether a system is the one that boots.
type Verdict string

const (
	// Boots means that the system is what the machine boots by default.
	Boots Verdict = "Boots"
	// BootsOther means that the machine boots another system, or cannot boot this one.
	BootsOther Verdict = "BootsOther"
	// Unverified means that it is not known.
	Unverified Verdict = "Unverified"
)

// Finding is what was found.
type Finding struct {
	Loader  Loader
	Verdict Verdict

	// Message is a sentence that says what boots instead, or why it is not known.
	Message string
}

// entry is what a boot loader boots.
type entry struct {
	// name is what the loader calls it.
	name string
	// init is the value of init= on the kernel's command line.
	init string
	// problem says why it cannot be booted; empty if it can.
	problem string
}

// errUnclear says that the configuration has something that is not understood.
var errUnclear = errors.New("it is not clear what boots")

// Check looks whether system is what the machine boots by default. root is where the
// host's file system begins.
func Check(root string, system nix.StorePath) Finding {
	loader, read := detect(root)
	if read == nil {
		return Finding{Loader: loader, Verdict: Unverified, Message: "no boot loader, or several, were found whose configuration is understood"}
	}
	e, err := read()
	if err != nil {
		return Finding{Loader: loader, Verdict: Unverified, Message: err.Error()}
	}
	f := Finding{Loader: loader, Verdict: BootsOther}
	switch {
	case e.init != string(system)+"/init":
		f.Message = fmt.Sprintf("%s boots %s by default, which is entry %s", loader, strings.TrimSuffix(e.init, "/init"), e.name)
	case e.problem != "":
		f.Message = fmt.Sprintf("entry %s of %s cannot be booted: %s", e.name, loader, e.problem)
	default:
		f.Verdict, f.Message = Boots, fmt.Sprintf("entry %s of %s", e.name, loader)
	}
	return f
}

// detect finds the loader, if there is exactly one. Its configuration may have been left
// behind by a loader that is not in use any more: whoever relies on a finding should
// have seen Boots before.
func detect(root string) (Loader, func() (entry, error)) {
	loader, found := Unknown, []func() (entry, error){}
	for _, esp := range []string{"boot", "efi", "boot/efi"} {
		directory := filepath.Join(root, esp)
		if exists(filepath.Join(directory, "loader", "loader.conf")) {
			loader = SystemdBoot
			found = append(found, func() (entry, error) { return systemdBoot(root, directory) })
		}
	}
	for _, directory := range []string{"boot/grub", "boot/grub2"} {
		if file := filepath.Join(root, directory, "grub.cfg"); exists(file) {
			loader = GRUB
			found = append(found, func() (entry, error) { return grub(file) })
		}
	}
	if file := filepath.Join(root, "boot/extlinux/extlinux.conf"); exists(file) {
		loader = Extlinux
		found = append(found, func() (entry, error) { return extlinux(file) })
	}
	if len(found) != 1 {
		return Unknown, nil
	}
	return loader, found[0]
}

func exists(file string) bool {
	info, err := os.Stat(file)
	return err == nil && info.Mode().IsRegular()
}

// maxConfig bounds what is read of a configuration: /boot is writable by whatever else
// boots there.
const maxConfig = 4 << 20

func readConfig(file string) (string, error) {
	info, err := os.Stat(file)
	if err != nil {
		return "", fmt.Errorf("read the boot loader's configuration: %w", err)
	}
	if !info.Mode().IsRegular() || info.Size() > maxConfig {
		return "", fmt.Errorf("%w: %s is no configuration of at most %d bytes", errUnclear, file, maxConfig)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("read the boot loader's configuration: %w", err)
	}
	return string(text), nil
}

// initOf is the value of init= in a kernel's command line.
func initOf(commandLine string) string {
	for word := range strings.FieldsSeq(commandLine) {
		if value, ok := strings.CutPrefix(word, "init="); ok {
			return value
		}
	}
	return ""
}

// fileProblem says why a file that has to be loaded cannot be; empty if it can.
func fileProblem(file, shown string) string {
	info, err := os.Stat(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return shown + " is missing"
	case err != nil:
		return err.Error()
	case !info.Mode().IsRegular() || info.Size() == 0:
		return shown + " is empty"
	default:
		return ""
	}
}
