// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

// Command nixfleet-control-plane is a NixFleet control plane in one process:
// etcd, a Kubernetes API server, the manager and the agent gateway.
package main

import (
	"os"

	"github.com/nixfleet/nixfleet/cmd/control-plane/internal/command"
)

func main() {
	os.Exit(command.Execute())
}
