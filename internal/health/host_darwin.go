// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package health

import (
	"context"
	"errors"
	"os/exec"
)

// NewUnitManager returns nil: systemd runs no Mac.
func NewUnitManager(string) UnitManager { return nil }

// NewLaunchctl returns the launchctl of the machine; nil for a host in a directory.
func NewLaunchctl(root string) Launchctl {
	if root != "/" {
		return nil
	}
	return func(ctx context.Context, args ...string) (string, int, error) {
		out, err := exec.CommandContext(ctx, "/bin/launchctl", args...).Output()
		var exit *exec.ExitError
		if errors.As(err, &exit) && ctx.Err() == nil {
			return string(out), exit.ExitCode(), nil
		}
		return string(out), 0, err
	}
}
