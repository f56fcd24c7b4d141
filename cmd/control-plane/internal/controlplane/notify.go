// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package controlplane

import (
	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/go-logr/logr"
)

const (
	stateReady    = daemon.SdNotifyReady
	stateStopping = daemon.SdNotifyStopping
)

// notify tells systemd; without systemd it does nothing. A lost message is no
// reason to end a control plane that works: systemd will see its own timeout.
func notify(log logr.Logger, state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		log.Error(err, "Cannot notify systemd", "state", state)
	}
}
