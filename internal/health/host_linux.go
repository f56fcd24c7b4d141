// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package health

import (
	"os"

	"github.com/coreos/go-systemd/v22/dbus"
)

// NewUnitManager returns systemd if it runs the machine and the host is the machine; nil
// otherwise.
func NewUnitManager(root string) UnitManager {
	if root != "/" {
		return nil
	}
	if stat, err := os.Stat("/run/systemd/system"); err != nil || !stat.IsDir() {
		return nil
	}
	// Not over the bus: it must work while the bus does not.
	return &systemd{connect: dbus.NewSystemdConnectionContext}
}

// NewLaunchctl returns nil: launchd runs Macs.
func NewLaunchctl(string) Launchctl { return nil }
