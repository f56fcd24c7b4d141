// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"
)

// startTimeout is what the control plane may take to get ready on a slow machine.
const startTimeout = 90 * time.Second

// readiness is the socket on which the control plane says that it is ready, as it says it
// to systemd.
type readiness struct {
	path   string
	socket *net.UnixConn
}

func listenReadiness(path string) (*readiness, error) {
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, err
	}
	return &readiness{path: path, socket: socket}, nil
}

func (r *readiness) close() error {
	err := r.socket.Close()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// startControlPlane starts it and returns when it is ready.
func (d *demo) startControlPlane() error {
	if err := d.start(d.controlPlane, "NOTIFY_SOCKET="+d.ready.path); err != nil {
		return err
	}
	if err := d.ready.socket.SetReadDeadline(time.Now().Add(startTimeout)); err != nil {
		return err
	}
	// A context ends no Read, but a deadline in the past does.
	unhook := context.AfterFunc(d.ctx, func() { _ = d.ready.socket.SetReadDeadline(time.Unix(1, 0)) })
	defer unhook()
	buffer := make([]byte, 1024)
	for {
		n, err := d.ready.socket.Read(buffer)
		if d.ctx.Err() != nil {
			return fmt.Errorf("wait until the control plane is ready: %w", context.Cause(d.ctx))
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return fmt.Errorf("expected the control plane to be ready within %s; see %s", startTimeout, d.controlPlane.log)
		}
		if err != nil {
			return err
		}
		if string(buffer[:n]) == "READY=1" {
			return nil
		}
	}
}
