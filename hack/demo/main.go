// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// demoTimeout bounds the whole demo. Each wait has a bound of its own besides.
const demoTimeout = 10 * time.Minute

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	// The demo runs itself again for the binary cache and the hosts' services, so that
	// they go on when it has ended (KEEP=1).
	if len(args) > 0 && args[0] == serveCommand {
		return report(serve(args[1:]))
	}
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	keep := flags.Bool("keep", os.Getenv("KEEP") != "" && os.Getenv("KEEP") != "0", "leave the fleet running (the variable KEEP=1 does the same)")
	chaos := flags.Bool("chaos", false, "kill the control plane and each agent in the middle of a rollout instead")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	if err := checkMachine(); err != nil {
		return report(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	return report(demonstrate(ctx, *keep, *chaos))
}

func report(err error) int {
	if err == nil {
		return 0
	}
	fmt.Fprintf(os.Stderr, "\ndemo: %v\n", err)
	return 1
}

// demonstrate runs the demo and always cleans up: after an error, an interruption and a
// panic too. With keep it leaves everything running, unless it was interrupted.
func demonstrate(interrupted context.Context, keep, chaos bool) (err error) {
	begin := time.Now()
	ctx, cancel := context.WithTimeoutCause(interrupted, demoTimeout, fmt.Errorf("the demo was not finished after %s", demoTimeout))
	defer cancel()
	d, err := newDemo(ctx)
	if err != nil {
		return err
	}
	d.keep = keep
	finished := false
	defer func() {
		if finished && keep && interrupted.Err() == nil {
			err = errors.Join(err, d.leaveRunning(err != nil))
			return
		}
		if err != nil || !finished {
			d.showLogs()
		}
		err = errors.Join(err, d.cleanUp())
	}()
	err = d.play(chaos)
	finished = true
	if cause := context.Cause(d.ctx); err != nil && cause != nil && !errors.Is(err, cause) {
		err = errors.Join(cause, err)
	}
	if err == nil {
		d.say("\nAll steps ended as they should, after %s.", time.Since(begin).Round(time.Second))
	}
	return err
}

// play builds the fleet and does the steps.
func (d *demo) play(chaos bool) error {
	steps, activationSeconds := d.steps(), 0
	if chaos {
		steps, activationSeconds = d.chaosSteps(), slowActivation
	}
	if err := d.setUp(activationSeconds); err != nil {
		return err
	}
	for _, s := range steps {
		begin := time.Now()
		d.say("\n=== %s", s.title)
		if err := s.run(); err != nil {
			return fmt.Errorf("%s: %w", s.title, err)
		}
		d.say("    (%s)", time.Since(begin).Round(100*time.Millisecond))
	}
	return nil
}

// step is a step of the demo: what a user would do, and what has to come of it.
type step struct {
	title string
	run   func() error
}
