// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package activation

import (
	"os"

	"github.com/coreos/go-systemd/v22/dbus"
)

// NewRunner returns the runner for the host whose file system begins at root: transient
// units if that is this machine and systemd runs it, children otherwise.
func NewRunner(root string) Runner {
	if root == "/" {
		if stat, err := os.Stat("/run/systemd/system"); err == nil && stat.IsDir() {
			return &systemdRunner{connect: dbus.NewSystemdConnectionContext}
		}
	}
	return &DirectRunner{Root: root}
}
