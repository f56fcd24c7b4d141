// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// user runs a command as a user would, in the directory of the demo, and shows the command
// and what it prints. The exit code has to be that one. If the control plane was killed
// meanwhile, the command is run again when it is back, as a user would.
func (d *demo) user(exitCode int, argv ...string) error {
	quoted := make([]string, len(argv))
	for i, arg := range argv {
		quoted[i] = arg
		if strings.ContainsAny(arg, " {}\"'") {
			quoted[i] = shellQuote(arg)
		}
	}
	line := strings.Join(quoted, " ")
	for {
		d.say("\n$ %s", line)
		before := d.controlPlane.pid()
		got, err := d.execute(argv)
		if err != nil {
			return fmt.Errorf("%s: %w", line, err)
		}
		if got == exitCode {
			return nil
		}
		if before != 0 && before == d.controlPlane.pid() {
			return fmt.Errorf("expected exit code %d of: %s; saw: %d", exitCode, line, got)
		}
		if err := d.awaitAPI(); err != nil {
			return err
		}
	}
}

func (d *demo) execute(argv []string) (exitCode int, err error) {
	cmd := exec.CommandContext(d.ctx, filepath.Join(d.binDir, argv[0]), argv[1:]...) //nolint:gosec // The demo's own commands.
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = d.dir, d.environment(), os.Stdout, os.Stdout
	err = cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && d.ctx.Err() == nil {
		return exit.ExitCode(), nil
	}
	if d.ctx.Err() != nil {
		err = context.Cause(d.ctx)
	}
	return 0, err
}

// apply applies files of the samples.
func (d *demo) apply(files ...string) error {
	argv := []string{kubectlProgram, "apply", "--server-side"}
	for _, file := range files {
		argv = append(argv, "-f", filepath.Join("manifests", file))
	}
	return d.user(0, argv...)
}

// nixfleet runs the plugin as kubectl runs it.
func (d *demo) nixfleet(exitCode int, args ...string) error {
	return d.user(exitCode, append([]string{kubectlProgram, "nixfleet", "-n", fleetNamespace}, args...)...)
}

func (d *demo) status(hosts ...string) error {
	return d.nixfleet(0, append([]string{"status"}, hosts...)...)
}

// wait waits for a rollout as a script would, until it ends or needs a person.
func (d *demo) wait(exitCode int, rollout string) error {
	return d.nixfleet(exitCode, "rollout", "status", rollout, "--wait", "--wait-timeout", awaitTimeout.String())
}

func (d *demo) cancel(rollout string) error {
	return d.user(0, kubectlProgram, "patch", "rollouts.nixfleet.io", rollout, "-n", fleetNamespace, "--type", "merge", "-p", `{"spec":{"state":"Cancelled"}}`)
}
