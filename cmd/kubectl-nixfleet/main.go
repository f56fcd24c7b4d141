// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

// The program kubectl-nixfleet is the plugin behind "kubectl nixfleet".
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/utils/clock"

	"github.com/nixfleet/nixfleet/internal/cli"
)

func main() {
	os.Exit(run())
}

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// Once asked to stop, the default holds again: a second signal kills.
	context.AfterFunc(ctx, stop)
	defer stop()
	return cli.Execute(ctx, os.Args[1:], cli.Streams{
		IOStreams: genericiooptions.IOStreams{In: os.Stdin, Out: os.Stdout, ErrOut: os.Stderr},
		Clock:     clock.RealClock{},
		NoColor:   os.Getenv("NO_COLOR") != "",
	})
}
