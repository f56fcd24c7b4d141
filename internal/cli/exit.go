// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Exit codes.
const (
	// ExitDone means that what was asked for is done.
	ExitDone = 0
	// ExitFailed means that it failed or was refused.
	ExitFailed = 1
	// ExitUsage means that the command line is wrong.
	ExitUsage = 2
	// ExitStoppedWaiting means that the time to wait was over, or that the wait was
	// interrupted: nothing is known about the end.
	ExitStoppedWaiting = 3
	// ExitNeedsPerson means that the rollout paused or needs approval.
	ExitNeedsPerson = 4
)

// exitError is an error that ends the program with a code of its own.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }

func (e *exitError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error {
	return &exitError{ExitUsage, fmt.Errorf(format, args...)}
}

func codef(code int, format string, args ...any) error {
	return &exitError{code, fmt.Errorf(format, args...)}
}

// Execute runs the command line and returns the exit code of the program. An error goes
// to errOut.
func Execute(ctx context.Context, args []string, streams Streams) int {
	cmd := New(streams)
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(ctx)
	if err == nil {
		return ExitDone
	}
	report(streams.ErrOut, err)
	if exit, ok := errors.AsType[*exitError](err); ok {
		return exit.code
	}
	return ExitFailed
}

func report(w io.Writer, err error) {
	var b strings.Builder
	for line := range strings.SplitSeq(err.Error(), "\n") {
		b.WriteString("error: " + line + "\n")
	}
	if exit, ok := errors.AsType[*exitError](err); ok && exit.code == ExitUsage {
		b.WriteString("Run 'kubectl nixfleet --help' or the same with the command's name for usage.\n")
	}
	// There is nobody left to tell that this could not be written.
	_, _ = io.WriteString(w, b.String())
}
