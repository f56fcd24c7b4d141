// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package bootloader

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/nixfleet/nixfleet/internal/nix"
)

const (
	systemA nix.StorePath = "/nix/store/0c0mmgsdhjxf8x4sjzzqvxw1hxsyqbnd-nixos-system-web-01-26.05.A"
	systemB nix.StorePath = "/nix/store/1s1nnhrcgkygy9y5skrpavwx2jzzpcmf-nixos-system-web-01-26.05.B"
)

// write makes the files of a host; the name ends at the first colon-free path.
func write(t *testing.T, root string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func commandLine(system nix.StorePath) string {
	return "init=" + string(system) + "/init loglevel=4 root=fstab"
}

// systemdBootHost has generation 7 of system A and 8 of system B.
func systemdBootHost(defaultEntry string) map[string]string {
	entry := func(generation string, system nix.StorePath) string {
		return "title NixOS\nsort-key nixos\nversion Generation " + generation + " NixOS 26.05\n" +
			"linux /EFI/nixos/kernel.efi\ninitrd /EFI/nixos/initrd.efi\noptions " + commandLine(system) + "\n"
	}
	return map[string]string{
		"boot/loader/loader.conf":                     "timeout 5\ndefault " + defaultEntry + "\nconsole-mode keep\n",
		"boot/loader/entries/nixos-generation-7.conf": entry("7", systemA),
		"boot/loader/entries/nixos-generation-8.conf": entry("8", systemB),
		"boot/loader/entries/windows.conf":            "title Windows\nefi /EFI/Microsoft/Boot/bootmgfw.efi\n",
		"boot/EFI/nixos/kernel.efi":                   "kernel", "boot/EFI/nixos/initrd.efi": "initrd",
	}
}

func with(files map[string]string, changes ...string) map[string]string {
	for i := 0; i < len(changes); i += 2 {
		if changes[i+1] == "-" {
			delete(files, changes[i])
			continue
		}
		files[changes[i]] = changes[i+1]
	}
	return files
}

func efiVariable(text string) string {
	raw := []byte{7, 0, 0, 0}
	for _, unit := range append(utf16.Encode([]rune(text)), 0) {
		raw = binary.LittleEndian.AppendUint16(raw, unit)
	}
	return string(raw)
}

// image is a program in the format PE with one section.
func image(section, text string) string {
	var b bytes.Buffer
	header := make([]byte, 64)
	copy(header, "MZ")
	binary.LittleEndian.PutUint32(header[60:], 64)
	b.Write(header)
	b.WriteString("PE\x00\x00")
	name := [8]byte{}
	copy(name[:], section)
	for _, field := range []any{
		uint16(0x8664), uint16(1), uint32(0), uint32(0), uint32(0), uint16(0), uint16(0), // file header: one section, no optional header
		name, uint32(len(text)), uint32(0x1000), uint32(len(text)), uint32(64 + 4 + 20 + 40), // where the section lies
		uint32(0), uint32(0), uint16(0), uint16(0), uint32(0x40000040),
	} {
		if err := binary.Write(&b, binary.LittleEndian, field); err != nil {
			panic(err)
		}
	}
	b.WriteString(text)
	return b.String()
}

func lanzabooteHost(b string) map[string]string {
	return map[string]string{
		"boot/loader/loader.conf": "timeout 5\ndefault nixos-*\n",
		"boot/EFI/Linux/nixos-generation-9-jovu5gbk6hhc6mcgqgvtdgzqzpnhzpcu.efi":  image(".cmdline", commandLine(systemA)),
		"boot/EFI/Linux/nixos-generation-10-k7wnyp3kg6tvp4vbqcqhu2x6p4dpf2rj.efi": b,
	}
}

const grubHeader = `
if [ -s $prefix/grubenv ]; then
  load_env
fi
if [ "${next_entry}" ]; then
  set default="${next_entry}"
  set next_entry=
  save_env next_entry
  set timeout=1
else
  set default=0
  set timeout=5
fi
function savedefault {
  if [ -z "${boot_once}" ]; then
    save_env saved_entry
  fi
}
`

func grubHost(header string, first, second nix.StorePath) map[string]string {
	return map[string]string{"boot/grub/grub.cfg": header + `
menuentry "NixOS" --class nixos --unrestricted {
search --set=drive1 --fs-uuid 1
  linux ($drive1)//kernels/x-bzImage ` + commandLine(first) + `
  initrd ($drive1)//kernels/x-initrd
}

submenu "NixOS - All configurations" --class submenu {
menuentry "NixOS - Configuration 8" --class nixos {
  linux ($drive1)//kernels/x-bzImage ` + commandLine(second) + `
}
}
`}
}

func extlinuxHost(system nix.StorePath) map[string]string {
	return map[string]string{
		"boot/extlinux/extlinux.conf": "# Generated file\nTIMEOUT 50\nDEFAULT nixos-default\nMENU TITLE -----\n\nLABEL nixos-default\n  MENU LABEL NixOS - Default\n" +
			"  LINUX ../nixos/Image\n  INITRD ../nixos/initrd\n  APPEND " + commandLine(system) + "\n  FDTDIR ../nixos/dtbs\n\nLABEL nixos-7-default\n  LINUX ../nixos/Image\n  APPEND " +
			commandLine(systemA) + "\n",
		"boot/nixos/Image": "kernel", "boot/nixos/initrd": "initrd",
	}
}

func TestCheck(t *testing.T) {
	const entry8 = "boot/loader/entries/nixos-generation-8.conf"
	tests := map[string]struct {
		files   map[string]string
		loader  Loader
		verdict Verdict
		says    string
	}{
		"systemd-boot":        {systemdBootHost("nixos-generation-8.conf"), SystemdBoot, Boots, "nixos-generation-8.conf"},
		"systemd-boot, other": {systemdBootHost("nixos-generation-7.conf"), SystemdBoot, BootsOther, string(systemA)},
		"systemd-boot, glob":  {systemdBootHost("nixos-generation-8*.conf"), SystemdBoot, Boots, ""},
		"systemd-boot, glob over many": {
			systemdBootHost("nixos-*"), SystemdBoot, Boots, "nixos-generation-8.conf",
		},
		"systemd-boot, numbers are no words": {
			with(systemdBootHost("nixos-*"), "boot/loader/entries/nixos-generation-10.conf", systemdBootHost("")["boot/loader/entries/nixos-generation-7.conf"]),
			SystemdBoot, BootsOther, "nixos-generation-10.conf",
		},
		"systemd-boot, boot counting": {
			with(systemdBootHost("nixos-generation-8.conf"), entry8, "-", "boot/loader/entries/nixos-generation-8+2-1.conf", systemdBootHost("")[entry8]),
			SystemdBoot, Boots, "nixos-generation-8+2-1.conf",
		},
		"systemd-boot, no entry of that name": {systemdBootHost("nixos-generation-9.conf"), SystemdBoot, Unverified, "no entry matches"},
		"systemd-boot, no default":            {with(systemdBootHost(""), "boot/loader/loader.conf", "timeout 5\n"), SystemdBoot, Unverified, "not clear"},
		"systemd-boot, saved default":         {systemdBootHost("@saved"), SystemdBoot, Unverified, "@saved"},
		"systemd-boot, empty kernel":          {with(systemdBootHost("nixos-generation-8.conf"), "boot/EFI/nixos/kernel.efi", ""), SystemdBoot, BootsOther, "kernel.efi is empty"},
		"systemd-boot, missing initrd":        {with(systemdBootHost("nixos-generation-8.conf"), "boot/EFI/nixos/initrd.efi", "-"), SystemdBoot, BootsOther, "initrd.efi is missing"},
		"systemd-boot, truncated entry":       {with(systemdBootHost("nixos-generation-8.conf"), entry8, ""), SystemdBoot, Unverified, "no init="},
		"systemd-boot, entry without kernel":  {with(systemdBootHost("nixos-generation-8.conf"), entry8, "options "+commandLine(systemB)), SystemdBoot, BootsOther, "names no kernel"},
		"systemd-boot, Windows is default":    {systemdBootHost("windows.conf"), SystemdBoot, Unverified, "windows.conf has no init="},
		"systemd-boot, variable wins":         {with(systemdBootHost("nixos-generation-8.conf"), entryDefaultVariable, efiVariable("nixos-generation-7.conf")), SystemdBoot, BootsOther, "nixos-generation-7.conf"},
		"systemd-boot, broken variable":       {with(systemdBootHost("nixos-generation-8.conf"), entryDefaultVariable, "abc"), SystemdBoot, Unverified, "LoaderEntryDefault"},
		"systemd-boot, other ESP": {
			func() map[string]string {
				moved := map[string]string{}
				for name, text := range systemdBootHost("nixos-generation-8.conf") {
					moved[strings.Replace(name, "boot/", "efi/", 1)] = text
				}
				return moved
			}(), SystemdBoot, Boots, "",
		},
		"lanzaboote":                       {lanzabooteHost(image(".cmdline", commandLine(systemB)+"\x00")), SystemdBoot, Boots, "nixos-generation-10-"},
		"lanzaboote, other":                {lanzabooteHost(image(".cmdline", commandLine(systemA))), SystemdBoot, BootsOther, string(systemA)},
		"lanzaboote, empty image":          {lanzabooteHost(""), SystemdBoot, Unverified, "cannot be read"},
		"lanzaboote, no command line":      {lanzabooteHost(image(".linux", "x")), SystemdBoot, Unverified, "no command line"},
		"GRUB":                             {grubHost(grubHeader, systemB, systemA), GRUB, Boots, "NixOS"},
		"GRUB, other":                      {grubHost(grubHeader, systemA, systemB), GRUB, BootsOther, string(systemA)},
		"GRUB, saved entry":                {grubHost(strings.Replace(grubHeader, "set default=0", `set default="${saved_entry}"`, 1), systemB, systemA), GRUB, Unverified, "not one of"},
		"GRUB, default is a menu of menus": {grubHost(strings.Replace(grubHeader, "set default=0", "set default=1", 1), systemB, systemA), GRUB, Unverified, "not one of"},
		"GRUB, empty":                      {map[string]string{"boot/grub/grub.cfg": ""}, GRUB, Unverified, "not one of its 0"},
		"extlinux":                         {extlinuxHost(systemB), Extlinux, Boots, "nixos-default"},
		"extlinux, other":                  {extlinuxHost(systemA), Extlinux, BootsOther, string(systemA)},
		"extlinux, no kernel":              {with(extlinuxHost(systemB), "boot/nixos/Image", "-"), Extlinux, BootsOther, "Image is missing"},
		"extlinux, empty":                  {map[string]string{"boot/extlinux/extlinux.conf": ""}, Extlinux, Unverified, "no entry"},
		"none":                             {nil, Unknown, Unverified, "no boot loader"},
		"two loaders":                      {with(grubHost(grubHeader, systemA, systemA), "boot/loader/loader.conf", "default x"), Unknown, Unverified, "several"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			write(t, root, tc.files)
			got := Check(root, systemB)
			if got.Loader != tc.loader || got.Verdict != tc.verdict || !strings.Contains(got.Message, tc.says) || got.Message == "" {
				t.Errorf("got %+v, want %s by %s with %q", got, tc.verdict, tc.loader, tc.says)
			}
		})
	}
}

// Whatever lies in /boot, and others write there too, the agent goes on.
func FuzzCheck(f *testing.F) {
	for _, files := range []map[string]string{systemdBootHost("nixos-*"), grubHost(grubHeader, systemB, systemA), extlinuxHost(systemB), lanzabooteHost(image(".cmdline", "x"))} {
		for name, text := range files {
			f.Add(name, text)
		}
	}
	names := []string{"boot/loader/loader.conf", "boot/loader/entries/nixos-generation-8.conf", "boot/EFI/Linux/nixos-generation-8.efi", "boot/grub/grub.cfg", "boot/extlinux/extlinux.conf"}
	f.Fuzz(func(t *testing.T, _, text string) {
		for _, name := range names {
			root := t.TempDir()
			if strings.HasSuffix(name, ".efi") || strings.Contains(name, "entries") {
				write(t, root, map[string]string{"boot/loader/loader.conf": "default nixos-*\n"})
			}
			write(t, root, map[string]string{name: text})
			if got := Check(root, systemB); got.Verdict == "" || got.Message == "" {
				t.Errorf("%s: got %+v", name, got)
			}
		}
	})
}
