// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package activation

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"k8s.io/utils/clock"

	"github.com/nixfleet/nixfleet/internal/attempt"
	"github.com/nixfleet/nixfleet/internal/nix"
)

const (
	firstRetry = time.Second
	lastRetry  = 15 * time.Second
)

var idPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$`)

// NixOS activates systems of NixOS on the host whose file system begins at Root.
type NixOS struct {
	// Root is where the host's file system begins.
	Root string

	// Runner runs the programs; see NewRunner.
	Runner Runner

	// LogDir is where the output of each activation is kept. Empty: nowhere.
	LogDir string

	// Clock times the waiting for another activation to end. Default: the real one.
	Clock clock.Clock
}

// Test makes s the running system and leaves the profile and the boot default alone.
// The id tells attempts apart in names of units and logs. The error wraps fs.ErrNotExist
// if the system has no program for it. While another activation holds the lock it is
// tried again, within timeout.
func (a *NixOS) Test(ctx context.Context, s attempt.System, timeout time.Duration, id string) (Result, error) {
	return a.run(ctx, s, timeout, action{kind: KindTest, verb: "test", id: id})
}

// TestUnchecked is Test without the system's own checks beforehand, for going back: what
// inhibits a switch inhibits its reversal, too.
func (a *NixOS) TestUnchecked(ctx context.Context, s attempt.System, timeout time.Duration, id string) (Result, error) {
	return a.run(ctx, s, timeout, action{kind: KindTestUnchecked, verb: "test", id: id, env: []string{"NIXOS_NO_CHECK=1"}})
}

// Boot makes path, which has to be in the profile, the boot default. The boot loader
// itself is not installed anew. A specialisation has no profile: its system has.
func (a *NixOS) Boot(ctx context.Context, path nix.StorePath, timeout time.Duration, id string) (Result, error) {
	return a.run(ctx, attempt.System{Path: path}, timeout, action{kind: KindBoot, verb: "boot", id: id})
}

// Kind is what a run of switch-to-configuration was for.
type Kind string

// Kinds of runs.
const (
	KindTest          Kind = "test"
	KindTestUnchecked Kind = "rollback"
	KindBoot          Kind = "boot"
)

// Abandon ends the run of this kind and id that an earlier process of the agent left
// behind, all of its processes included. Without such a run nothing happens.
func (a *NixOS) Abandon(ctx context.Context, kind Kind, id string) error {
	if err := a.Runner.Stop(ctx, UnitName(kind, id)); err != nil {
		return fmt.Errorf("end %s-%s, which an earlier agent began: %w", kind, id, err)
	}
	return nil
}

// UnitName is the service that a run of this kind and id gets where systemd runs the
// machine.
func UnitName(kind Kind, id string) string {
	return "nixfleet-" + string(kind) + "-" + id + ".service"
}

// Running is the system that runs, and its specialisation if one does. Both are empty if
// none was ever activated.
func (a *NixOS) Running() (nix.StorePath, string, error) {
	return a.system("run/current-system")
}

// Booted is the system that the host was booted into. Empty if it was not booted into any.
func (a *NixOS) Booted() (nix.StorePath, error) {
	path, _, err := a.system("run/booted-system")
	return path, err
}

func (a *NixOS) system(link string) (nix.StorePath, string, error) {
	link = filepath.Join(a.Root, link)
	target, err := os.Readlink(link)
	if errors.Is(err, fs.ErrNotExist) {
		return "", "", nil
	}
	if err != nil {
		return "", "", fmt.Errorf("read which system runs: %w", err)
	}
	base, specialisation, special := strings.Cut(target, "/specialisation/")
	path, err := nix.ParseStorePath(base)
	if err == nil && special && (specialisation == "" || strings.Contains(specialisation, "/")) {
		err = fmt.Errorf("%q does not name a specialisation", target)
	}
	if err != nil {
		return "", "", fmt.Errorf("%s does not lead to a system: %w", link, err)
	}
	return path, specialisation, nil
}

// program is where the program of a system lies. That of a specialisation is not looked
// for inside the store beforehand: it is part of a system that was.
func (a *NixOS) program(s attempt.System) (string, bool, error) {
	closure := nix.OpenClosure(a.Root, s.Path)
	has, err := closure.HasSwitchToConfiguration()
	if err != nil || s.Specialisation == "" {
		return closure.SwitchProgram(), has, err
	}
	program := filepath.Join(a.Root, s.String(), "bin", filepath.Base(closure.SwitchProgram()))
	_, err = os.Lstat(filepath.Join(a.Root, s.String()))
	return program, has && err == nil, nil
}

type action struct {
	kind     Kind
	verb, id string
	env      []string
}

func (a *NixOS) run(ctx context.Context, s attempt.System, timeout time.Duration, act action) (Result, error) {
	command, err := a.command(s, timeout, act)
	if err != nil {
		return Result{ExitCode: -1}, fmt.Errorf("%s %s: %w", act.kind, s, err)
	}
	c := a.Clock
	if c == nil {
		c = clock.RealClock{}
	}
	logErr := pruneLogs(a.LogDir)
	end := c.Now().Add(timeout)
	for wait := firstRetry; ; wait = min(2*wait, lastRetry) {
		result, err := a.Runner.Run(ctx, command)
		result.LogErr = errors.Join(logErr, result.LogErr)
		if err != nil {
			return result, fmt.Errorf("%s %s: %w", act.kind, s, err)
		}
		left := end.Sub(c.Now()) - wait
		if result.ExitCode != exitLocked || result.TimedOut || left <= 0 {
			return result, nil
		}
		select {
		case <-ctx.Done():
			return result, fmt.Errorf("%s %s: another activation holds the lock: %w", act.kind, s, context.Cause(ctx))
		case <-c.After(wait):
		}
		command.Timeout = left
	}
}

func (a *NixOS) command(s attempt.System, timeout time.Duration, act action) (Command, error) {
	if timeout <= 0 {
		return Command{}, fmt.Errorf("a timeout of %s leaves no time to activate", timeout)
	}
	if !idPattern.MatchString(act.id) {
		return Command{}, fmt.Errorf("%q cannot be part of the name of a unit", act.id)
	}
	program, has, err := a.program(s)
	if err != nil {
		return Command{}, err
	}
	if !has {
		return Command{}, &fs.PathError{Op: "activate with", Path: program, Err: fs.ErrNotExist}
	}
	command := Command{
		Program: program,
		Args:    []string{act.verb},
		Env:     append([]string{"NIXOS_INSTALL_BOOTLOADER=0"}, act.env...),
		Timeout: timeout,
		Unit:    UnitName(act.kind, act.id),
	}
	if a.LogDir != "" {
		command.Log = filepath.Join(a.LogDir, string(act.kind)+"-"+act.id+".log")
	}
	return command, nil
}
