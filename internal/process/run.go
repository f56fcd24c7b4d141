// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"syscall"
	"time"
)

const (
	// groupPoll is how often it is looked whether a killed group is gone. The kernel
	// tells nobody but the parents, and those may be gone themselves.
	groupPoll = 10 * time.Millisecond

	// groupPatience is how long a killed group may take to vanish, for a process that
	// waits for a device cannot die.
	groupPatience = 10 * time.Second
)

// Spec is what to run.
type Spec struct {
	// Path is the program's file. It is not searched for.
	Path string

	// Args are the arguments behind the program's name.
	Args []string

	// Env is the whole environment.
	Env []string

	// Output gets standard output and standard error. Nil: they are thrown away.
	Output io.Writer

	// Timeout is how long the program may run. Zero: as long as the context.
	Timeout time.Duration

	// Grace is how long its processes may take to end after SIGTERM. Zero: SIGKILL at once.
	Grace time.Duration
}

// Outcome is how a program ended.
type Outcome struct {
	// ExitCode is the exit code; -1 if a signal ended it.
	ExitCode int

	// TimedOut tells that Timeout was over and the program was stopped.
	TimedOut bool
}

// Run runs the program in a session of its own and waits until its process group is
// gone: what it left behind is ended as well. The error says that it could not be
// started or that ctx ended it; an exit code and a timeout are no errors.
func Run(ctx context.Context, spec Spec) (Outcome, error) {
	if err := ctx.Err(); err != nil {
		return Outcome{ExitCode: -1}, fmt.Errorf("run %s: %w", spec.Path, context.Cause(ctx))
	}
	timed, cancel := ctx, context.CancelFunc(func() {})
	if spec.Timeout > 0 {
		timed, cancel = context.WithTimeout(ctx, spec.Timeout)
	}
	defer cancel()

	cmd := exec.Command(spec.Path, spec.Args...) //nolint:noctx // The whole process group has to be stopped, not the program alone.
	cmd.Env = append([]string{}, spec.Env...)
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = spec.Output, spec.Output
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	// A process that left the group may hold the pipe open.
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		return Outcome{ExitCode: -1}, fmt.Errorf("start %s: %w", spec.Path, err)
	}
	stopped, release := stopWhenDone(timed, cmd.Process.Pid, spec.Grace)
	err := cmd.Wait()
	release()
	<-stopped
	return outcome(ctx, timed, cmd, spec, err)
}

func outcome(ctx, timed context.Context, cmd *exec.Cmd, spec Spec, err error) (Outcome, error) {
	out := Outcome{ExitCode: cmd.ProcessState.ExitCode()}
	if gone := awaitGroup(cmd.Process.Pid); gone != nil {
		return out, fmt.Errorf("run %s: %w", spec.Path, gone)
	}
	if err == nil || errors.Is(err, exec.ErrWaitDelay) && out.ExitCode == 0 {
		return out, nil
	}
	if ctx.Err() != nil {
		return out, fmt.Errorf("%s was stopped: %w", spec.Path, context.Cause(ctx))
	}
	if timed.Err() != nil {
		out.TimedOut = true
		return out, nil //nolint:nilerr // an end of the program is a result, told by its exit code
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) || errors.Is(err, exec.ErrWaitDelay) {
		return out, nil
	}
	return out, fmt.Errorf("run %s: %w", spec.Path, err)
}

// stopWhenDone ends the process group when ctx does: first politely, then by force.
// release has to be called when the leader is gone, which ends its group in any case.
func stopWhenDone(ctx context.Context, group int, grace time.Duration) (stopped <-chan struct{}, release func()) {
	leaderGone := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-leaderGone:
		case <-ctx.Done():
			signalGroup(group, syscall.SIGTERM)
			awaitGrace(leaderGone, group, grace)
		}
		signalGroup(group, syscall.SIGKILL)
	}()
	return done, func() { close(leaderGone) }
}

// awaitGrace returns when the group is gone or grace is over. While the leader is not
// waited for it counts as a member, so the group is asked only after that.
func awaitGrace(leaderGone <-chan struct{}, group int, grace time.Duration) {
	over := time.NewTimer(grace)
	defer over.Stop()
	select {
	case <-leaderGone:
	case <-over.C:
		return
	}
	tick := time.NewTicker(groupPoll)
	defer tick.Stop()
	for groupExists(group) {
		select {
		case <-tick.C:
		case <-over.C:
			return
		}
	}
}

func awaitGroup(group int) error {
	tick := time.NewTicker(groupPoll)
	defer tick.Stop()
	patience := time.NewTimer(groupPatience)
	defer patience.Stop()
	for groupExists(group) {
		select {
		case <-tick.C:
		case <-patience.C:
			return fmt.Errorf("processes of group %d are still there %s after SIGKILL", group, groupPatience)
		}
	}
	return nil
}

func groupExists(group int) bool {
	return !errors.Is(syscall.Kill(-group, 0), syscall.ESRCH)
}

// signalGroup has nobody to report to: the group may be gone already, which is the aim.
func signalGroup(group int, signal syscall.Signal) {
	_ = syscall.Kill(-group, signal)
}
