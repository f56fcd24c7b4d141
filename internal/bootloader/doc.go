// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

// Package bootloader tells which system of NixOS a machine boots by default, by reading
// what the boot loaders themselves read: systemd-boot, lanzaboote, GRUB and extlinux.
//
// It only reads, and it never guesses: what it does not understand is Unverified. A boot
// entry is written by switch-to-configuration, and by nobody here.
package bootloader
