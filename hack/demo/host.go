// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/nixfleet/nixfleet/internal/identity"
	"github.com/nixfleet/nixfleet/internal/nix"
)

// host is a machine of the fleet: a directory that is its root, a key, an agent.
type host struct {
	name  string
	root  string
	port  int
	pin   string
	agent *process
}

func (d *demo) host(name string) *host {
	for _, h := range d.hosts {
		if h.name == name {
			return h
		}
	}
	return nil
}

// serviceAddress is where the host's service listens.
func (h *host) serviceAddress() string { return fmt.Sprintf("127.0.0.1:%d", h.port) }

// install puts a system on the host as an installation medium does: in the store, in the
// profile, booted and running. The host makes its key.
func (d *demo) install(h *host) error {
	system := d.systems[installed][h.name]
	for _, dir := range []string{"run", "var/log", "var/lib/nixfleet", "etc/nixfleet"} {
		if err := os.MkdirAll(filepath.Join(h.root, dir), 0o700); err != nil {
			return err
		}
	}
	if err := d.nixRun("nix", "copy", "--from", d.builder(), "--to", h.root, system.String(), "--option", "trusted-public-keys", d.key.public); err != nil {
		return err
	}
	if err := d.nixRun("nix-env", "--store", h.root, "--profile", filepath.Join(h.root, "nix/var/nix/profiles/system"), "--set", system.String()); err != nil {
		return err
	}
	for _, link := range []string{"current-system", "booted-system"} {
		if err := os.Symlink(system.String(), filepath.Join(h.root, "run", link)); err != nil {
			return err
		}
	}
	key, err := identity.LoadOrCreateKey(h.keyFile())
	if err != nil {
		return err
	}
	pin, err := identity.PinOf(key.Public())
	if err != nil {
		return err
	}
	h.pin = pin.String() + " " + h.name
	return nil
}

func (h *host) keyFile() string { return filepath.Join(h.root, "etc/nixfleet/host.key") }

// running is what /run/current-system of the host says.
func (h *host) running() (nix.StorePath, error) {
	return readStorePath(filepath.Join(h.root, "run", "current-system"))
}

// profile is the system that the host's profile names, and the number of its generation.
func (h *host) profile() (nix.StorePath, string, error) {
	dir := filepath.Join(h.root, "nix/var/nix/profiles")
	generation, err := os.Readlink(filepath.Join(dir, "system"))
	if err != nil {
		return "", "", err
	}
	path, err := readStorePath(filepath.Join(dir, generation))
	return path, generation, err
}

func readStorePath(link string) (nix.StorePath, error) {
	target, err := os.Readlink(link)
	if err != nil {
		return "", err
	}
	return nix.ParseStorePath(target)
}

// activations are the calls of switch-to-configuration on this host, oldest first, as
// "ACTION STORE-PATH".
func (h *host) activations() ([]string, error) {
	data, err := os.ReadFile(h.switchLog())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return strings.Fields(strings.ReplaceAll(strings.TrimSpace(string(data)), " ", "=")), nil
}

func (h *host) switchLog() string { return filepath.Join(h.root, "var", "log", "switch.log") }
