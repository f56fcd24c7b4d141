// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

// Command nixfleet-agent runs on every host of a fleet.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/nixfleet/nixfleet/internal/agent"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := agent.NewCommand().ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "nixfleet-agent:", err)
		os.Exit(1)
	}
}
