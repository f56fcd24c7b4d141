// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

// Package e2e tries the node agent on real hosts: containers of systemd-nspawn in which
// systemd is process 1, with their own network, Nix store, /boot and state, against the
// real control plane. "make test-e2e" runs it, as root.
//
// The hosts are Debian's /usr with the file system of NixOS around it: units come from the
// running system by way of /etc/static, switch-to-configuration is a script that locks,
// reloads systemd and restarts what changed as that of NixOS does (systems.nix), and the
// boot loader is host_test.go, which boots what /boot/extlinux names.
//
// What cannot be tried in a container: another kernel, a firmware, and a clock that is set
// back, which containers share with the machine.
package e2e
