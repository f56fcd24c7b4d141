// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/attempt"
	"github.com/nixfleet/nixfleet/internal/nix"
)

const (
	inhibitorsFile = "switch-inhibitors"
	maxInhibitors  = 1 << 20

	// bootReserve is what stays free on the boot partition, for entries and their like.
	bootReserve = 2 << 20
)

// Preflight implements Source. What it finds would make switch-to-configuration fail, or
// succeed and leave a host that cannot be reached or booted: it is found beforehand.
func (s *StoreSource) Preflight(_ context.Context, previous, target attempt.System) error {
	for _, check := range []func(previous, target attempt.System) error{s.initFits, s.notInhibited, s.hasAgent, s.bootSpace} {
		if err := check(previous, target); err != nil {
			return err
		}
	}
	return nil
}

// Has implements Source.
func (s *StoreSource) Has(path nix.StorePath, specialisation string) bool {
	_, err := os.Lstat(filepath.Join(s.Root, attempt.System{Path: path, Specialisation: specialisation}.String()))
	return err == nil
}

// initFits refuses a system that the running init cannot take over.
func (s *StoreSource) initFits(previous, target attempt.System) error {
	if previous.Path == "" {
		return nil
	}
	was, err := nix.OpenClosure(s.Root, previous.Path).InitInterfaceVersion()
	if errors.Is(err, nix.ErrNotValid) {
		return nil // what runs is not in the store any more; switch-to-configuration has the last word
	}
	if err != nil {
		return fmt.Errorf("compare the versions of init: %w", err)
	}
	is, err := nix.OpenClosure(s.Root, target.Path).InitInterfaceVersion()
	if err != nil {
		return fmt.Errorf("compare the versions of init: %w", err)
	}
	if was != "" && is != "" && was != is {
		return &Refusal{Reason: nfv1.ReasonUnsupported, Err: fmt.Errorf(
			"it needs a reboot: its init is %q and %q runs, and this version of the agent can activate in the running system only", is, was)}
	}
	return nil
}

// notInhibited refuses a system with a change that its builders forbid in a running one:
// a key that both have with another value.
func (s *StoreSource) notInhibited(previous, target attempt.System) error {
	if previous.Path == "" {
		return nil
	}
	was, err := s.inhibitors(previous.Path)
	if err != nil {
		return err
	}
	is, err := s.inhibitors(target.Path)
	if err != nil {
		return err
	}
	if changed := inhibited(was, is); len(changed) > 0 {
		return &Refusal{Reason: nfv1.ReasonUnsupported, Err: fmt.Errorf(
			"it needs a reboot: it changes %s, which its switch inhibitors forbid in a running system, and this version of the agent can activate in the running system only",
			shorten(strings.Join(changed, ", "), 200))}
	}
	return nil
}

// inhibited are the keys that both have with different values, in order.
func inhibited(was, is map[string]string) []string {
	var changed []string
	for key, value := range is {
		if before, both := was[key]; both && before != value {
			changed = append(changed, key)
		}
	}
	slices.Sort(changed)
	return changed
}

func (s *StoreSource) inhibitors(path nix.StorePath) (map[string]string, error) {
	file, err := nix.ResolveInStore(s.Root, path.String()+"/"+inhibitorsFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the switch inhibitors of %s: %w", path, err)
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("read the switch inhibitors of %s: %w", path, err)
	}
	defer f.Close() //nolint:errcheck // it was only read
	var found map[string]string
	if err := json.NewDecoder(io.LimitReader(f, maxInhibitors)).Decode(&found); err != nil {
		return nil, fmt.Errorf("read the switch inhibitors of %s: %w", path, err)
	}
	return found, nil
}

// hasAgent refuses a system that would not start the agent: nobody could reach the host
// again, and nobody could confirm.
func (s *StoreSource) hasAgent(_, target attempt.System) error {
	if s.AgentUnit == "" {
		return nil
	}
	units := target.String() + "/etc/systemd/system"
	if _, err := nix.ResolveInStore(s.Root, units+"/"+s.AgentUnit); err != nil {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, nix.ErrOutsideStore) {
			return &Refusal{Reason: nfv1.ReasonAgentMissing, Err: fmt.Errorf("it has no %s: the host could never be reached again", s.AgentUnit)}
		}
		return fmt.Errorf("look for %s in the system: %w", s.AgentUnit, err)
	}
	dir, err := nix.ResolveInStore(s.Root, units)
	if err != nil {
		return fmt.Errorf("look for %s in the system: %w", s.AgentUnit, err)
	}
	for _, pattern := range []string{"*.wants", "*.requires"} {
		found, err := filepath.Glob(filepath.Join(dir, pattern, s.AgentUnit))
		if err != nil {
			return fmt.Errorf("look for %s in the system: %w", s.AgentUnit, err)
		}
		if len(found) > 0 {
			return nil
		}
	}
	return &Refusal{Reason: nfv1.ReasonAgentMissing, Err: fmt.Errorf("%s is not enabled in it: the host could never be reached again", s.AgentUnit)}
}

// bootSpace refuses a system whose kernel does not fit on a boot partition of its own: a
// full one has made switch-to-configuration succeed without an entry that boots. What is
// there already, under the name that loaders give it, costs nothing.
func (s *StoreSource) bootSpace(_, target attempt.System) error {
	boot := filepath.Join(s.Root, "boot")
	var store, part unix.Stat_t
	has := unix.Stat(boot, &part) == nil && unix.Stat(filepath.Join(s.Root, nix.StoreDir), &store) == nil && part.Dev != store.Dev
	if !has {
		return nil // and it needs none
	}
	var need uint64
	for _, name := range []string{"kernel", "initrd"} {
		file, err := nix.ResolveInStore(s.Root, target.String()+"/"+name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("look at the %s of the system: %w", name, err)
		}
		info, err := os.Stat(file)
		if err != nil {
			return fmt.Errorf("look at the %s of the system: %w", name, err)
		}
		if !onBoot(boot, storePathOf(strings.TrimPrefix(file, strings.TrimSuffix(s.Root, "/"))).Hash()) {
			need += uint64(info.Size()) //nolint:gosec // no file is smaller than nothing
		}
	}
	if need == 0 {
		return nil
	}
	var st unix.Statfs_t
	if err := unix.Statfs(boot, &st); err != nil {
		return fmt.Errorf("look at the boot partition: %w", err)
	}
	if free := st.Bavail * uint64(st.Bsize); need+bootReserve > free { //nolint:gosec // a block size is positive
		return &Refusal{Reason: nfv1.ReasonDiskPressure, Err: fmt.Errorf("its kernel and initrd need %d MiB on /boot with the reserve, and %d MiB are free",
			(need+bootReserve)>>20, free>>20)}
	}
	return nil
}

// onBoot reports whether a loader has put a file of this store path onto the partition.
func onBoot(boot, hash string) bool {
	if hash == "" {
		return false
	}
	for _, dir := range []string{"EFI/nixos", "kernels", "nixos"} {
		found, err := filepath.Glob(filepath.Join(boot, dir, hash+"-*"))
		if err == nil && len(found) > 0 {
			return true
		}
	}
	return false
}
