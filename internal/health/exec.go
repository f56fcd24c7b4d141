// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package health

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os/user"
	"path"
	"strings"
	"time"

	"github.com/nixfleet/nixfleet/internal/nix"
	"github.com/nixfleet/nixfleet/internal/process"
)

const (
	maxExecTail = 2 << 10
	minimalPath = "PATH=/run/current-system/sw/bin:/usr/bin:/bin"
)

// TransientCommand is a command for a transient unit of its own.
type TransientCommand struct {
	// Unit is the name of the unit with its suffix. One of that name that has failed is
	// forgotten first.
	Unit string

	// Description is for people.
	Description string

	// Program is the file, Args are the arguments behind its name. Nothing expands them.
	Program string
	Args    []string

	// User is whom the command runs as. Empty: a user that exists as long as the command.
	User string

	// Timeout is when every process of the unit is ended. Required.
	Timeout time.Duration
}

func (p *Prober) probeExec(ctx context.Context, c Check, timeout time.Duration) error {
	program, err := p.program(*c.Exec)
	if err != nil {
		return err
	}
	capture := process.NewCapture(maxExecTail, nil, 0)
	out, err := p.runExec(ctx, c, program, timeout, capture)
	switch {
	case err != nil:
		return fmt.Errorf("%w; %s", err, capture.LastLine())
	case out.TimedOut:
		return fmt.Errorf("it did not end within %s; %s", timeout, capture.LastLine())
	case out.ExitCode != 0:
		return fmt.Errorf("it exited with %d; %s", out.ExitCode, capture.LastLine())
	}
	return nil
}

// program finds the file of a command, which has to be in the store: nothing else was
// signed together with the check.
func (p *Prober) program(c Exec) (string, error) {
	argv0 := ""
	if len(c.Argv) > 0 {
		argv0 = c.Argv[0]
	}
	if !strings.HasPrefix(argv0, nix.StoreDir+"/") || path.Clean(argv0) != argv0 {
		return "", fmt.Errorf("the program %q is not a path in %s", argv0, nix.StoreDir)
	}
	program, err := nix.ResolveInStore(p.Root, argv0)
	if err != nil {
		return "", fmt.Errorf("find the program: %w", err)
	}
	return program, nil
}

func (p *Prober) runExec(ctx context.Context, c Check, program string, timeout time.Duration, out *process.Capture) (process.Outcome, error) {
	if p.Units != nil {
		return p.Units.Run(ctx, TransientCommand{
			Unit: checkUnit(c.Name), Description: "NixFleet: health check " + c.Name,
			Program: program, Args: c.Exec.Argv[1:], User: c.Exec.User, Timeout: timeout,
		}, out)
	}
	if err := isMe(c.Exec.User); err != nil {
		return process.Outcome{ExitCode: -1}, err
	}
	return process.Run(ctx, process.Spec{
		Path: program, Args: c.Exec.Argv[1:], Env: []string{minimalPath}, Output: out, Timeout: timeout,
	})
}

// checkUnit is a name that no other check has, whatever characters its own has in it.
func checkUnit(name string) string {
	sum := sha256.Sum256([]byte(name))
	return "nixfleet-check-" + hex.EncodeToString(sum[:8]) + ".service"
}

// isMe makes sure that a command which wants to be another user is not run as this one.
func isMe(name string) error {
	if name == "" {
		return nil
	}
	me, err := user.Current()
	if err != nil {
		return fmt.Errorf("find out as whom the agent runs: %w", err)
	}
	if me.Username != name {
		return fmt.Errorf("it wants to run as %s, and the agent, which is %s, can do that only on a host that systemd runs", name, me.Username)
	}
	return nil
}
