// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package controlplane

import (
	"errors"
	"net"
	"os"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/go-logr/logr"
)

const notifySocket = "NOTIFY_SOCKET"

// notifier tells systemd how far the process is. Without systemd it does
// nothing.
type notifier struct {
	socket string
	log    logr.Logger
}

// takeNotifier takes systemd's socket out of the environment. The API server
// inside this process would use it otherwise: it says READY as soon as it
// serves, before the fleet's resources exist, and then takes the socket away.
func takeNotifier(log logr.Logger) *notifier {
	n := &notifier{socket: os.Getenv(notifySocket), log: log}
	if err := os.Unsetenv(notifySocket); err != nil {
		log.Error(err, "Cannot change the environment", "variable", notifySocket)
	}
	return n
}

func (n *notifier) ready()    { n.tell(daemon.SdNotifyReady) }
func (n *notifier) stopping() { n.tell(daemon.SdNotifyStopping) }

// tell sends one state. A lost message is no reason to end a control plane that
// works: systemd notices by its own timeout.
func (n *notifier) tell(state string) {
	if n.socket == "" {
		return
	}
	if err := send(n.socket, state); err != nil {
		n.log.Error(err, "Cannot notify systemd", "state", state)
	}
}

// send is daemon.SdNotify for a socket that is not in the environment. A name
// that begins with @ is in the abstract namespace; package net knows that.
func send(socket, state string) error {
	connection, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		return err
	}
	_, err = connection.Write([]byte(state))
	return errors.Join(err, connection.Close())
}
