// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package activation

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/nixfleet/nixfleet/internal/process"
)

const (
	maxLog    = 1 << 20
	maxOutput = 2 << 10

	defaultGrace = 10 * time.Second

	// standardPath has what a system may call before its own wrapper sets a path.
	standardPath = "PATH=/run/wrappers/bin:/run/current-system/sw/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)

// Runner runs a command to its end.
type Runner interface {
	// Run waits until the command and all its processes have ended. An exit code other
	// than 0 and a timeout are no errors.
	Run(ctx context.Context, c Command) (Result, error)

	// Stop ends what another process of this program left running under the name of a
	// unit, with all its processes. Without such a unit nothing happens.
	Stop(ctx context.Context, unit string) error
}

// Command is a program of a system.
type Command struct {
	// Program is its file.
	Program string

	// Args stand behind the program's name.
	Args []string

	// Env is added to a PATH of standard directories; nothing else is inherited.
	Env []string

	// Timeout is how long it may run before it is stopped. Zero: no limit.
	Timeout time.Duration

	// Log is the file that gets the output, at most 1 MiB of it. Empty: none. The command
	// runs even if it cannot be written: see Result.LogErr.
	Log string

	// Unit is the name of the systemd service, with its suffix.
	Unit string
}

// Result is how a command ended.
type Result struct {
	// ExitCode is its exit code; -1 if a signal ended it.
	ExitCode int

	// TimedOut tells that it was stopped because its time was over.
	TimedOut bool

	// Output is the end of what it printed, at most 2 KiB.
	Output string

	// ScriptFailed tells that the output said so of the activation script, which some exit
	// codes hide.
	ScriptFailed bool

	// LogErr is why the log is not there or not whole, such as a full disk. It says
	// nothing about the command: a host with a full disk must be able to go back.
	LogErr error
}

// DirectRunner runs a command as a child in a session of its own. The end of its context
// ends the command.
type DirectRunner struct {
	// Root is the host that the commands are run for. It tells them apart from those of
	// other hosts on the same machine.
	Root string

	// Grace is how long a command may take to end by itself when its time is over.
	// Default: 10 s.
	Grace time.Duration
}

// Run implements Runner.
func (r *DirectRunner) Run(ctx context.Context, c Command) (Result, error) {
	file, logErr := openLog(c.Log)
	var log io.Writer
	if logErr == nil {
		log = file
	}
	capture := process.NewCapture(maxOutput, log, maxLog)
	watch := &phraseWatch{Writer: capture}
	grace := r.Grace
	if grace == 0 {
		grace = defaultGrace
	}
	out, err := process.Run(ctx, process.Spec{
		Path: c.Program, Args: c.Args, Env: append(environment(c.Env), r.mark(c.Unit)),
		Output: watch, Timeout: c.Timeout, Grace: grace,
	})
	if logErr == nil {
		logErr = errors.Join(capture.Err(), file.Close())
	}
	return Result{ExitCode: out.ExitCode, TimedOut: out.TimedOut, Output: capture.Tail(), ScriptFailed: watch.seen, LogErr: logErr}, err
}

// mark is the variable by which the processes of a unit are found when the process that
// started them is gone. It is there from their first moment on, unlike a file with their
// numbers, and no other process gets the number of one that has ended in between.
func (r *DirectRunner) mark(unit string) string {
	return "NIXFLEET_UNIT=" + filepath.Clean(r.Root) + "//" + unit
}

// Stop implements Runner.
func (r *DirectRunner) Stop(ctx context.Context, unit string) error {
	return process.KillMarked(ctx, r.mark(unit))
}

// openLog makes the log anew: the one of an earlier try would pass for this one's.
func openLog(name string) (*os.File, error) {
	if name == "" {
		name = os.DevNull
	} else if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return nil, fmt.Errorf("make the directory for logs: %w", err)
	}
	file, err := os.OpenFile(name, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the log: %w", err)
	}
	return file, nil
}

func environment(env []string) []string {
	base := []string{standardPath}
	// Without it the messages of a system's programs lose their characters.
	if locales, ok := os.LookupEnv("LOCALE_ARCHIVE"); ok {
		base = append(base, "LOCALE_ARCHIVE="+locales)
	}
	return append(base, env...)
}
