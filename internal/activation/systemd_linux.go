// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package activation

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"

	"github.com/nixfleet/nixfleet/internal/process"
)

const (
	// unitLook is how often the state of a unit is read. A subscription would end
	// unnoticed when the activation re-executes systemd, which is when it matters.
	unitLook = time.Second

	// stopPatience is how long the processes of a unit may take to vanish; systemd
	// kills them after defaultGrace.
	stopPatience = 3 * defaultGrace

	childExited = 1 // CLD_EXITED
)

// systemdRunner runs each command in a transient unit of its own. When its context ends
// the unit stays: the agent may be restarted by what it runs, and systemd itself
// ends the unit at its timeout.
type systemdRunner struct {
	connect func(ctx context.Context) (*dbus.Conn, error)
}

// Run implements Runner.
func (r *systemdRunner) Run(ctx context.Context, c Command) (Result, error) {
	failed := Result{ExitCode: -1}
	log, logErr := openLog(c.Log)
	if logErr == nil {
		logErr = log.Close()
	}
	if logErr != nil {
		c.Log = ""
	}
	// One of that name is left of an agent that was ended.
	if err := r.clear(ctx, c.Unit); err != nil {
		return failed, fmt.Errorf("clear unit %s: %w", c.Unit, err)
	}
	if err := r.start(ctx, c); err != nil {
		return failed, fmt.Errorf("start unit %s: %w", c.Unit, err)
	}
	result, err := r.await(ctx, c)
	if err != nil {
		return result, fmt.Errorf("wait for unit %s: %w", c.Unit, err)
	}
	if err := r.clear(ctx, c.Unit); err != nil {
		return result, fmt.Errorf("clear unit %s: %w", c.Unit, err)
	}
	var settleErr error
	result.Output, settleErr = settleLog(c.Log)
	result.LogErr = errors.Join(logErr, settleErr)
	return result, nil
}

// Stop implements Runner.
func (r *systemdRunner) Stop(ctx context.Context, unit string) error {
	return r.clear(ctx, unit)
}

func properties(c Command) []dbus.Property {
	property := func(name string, value any) dbus.Property {
		return dbus.Property{Name: name, Value: godbus.MakeVariant(value)}
	}
	list := []dbus.Property{
		dbus.PropDescription("NixFleet: " + c.Program),
		dbus.PropExecStart(append([]string{c.Program}, c.Args...), false),
		// Started when the program runs; kept when it ended, for its exit code.
		property("Type", "exec"),
		property("RemainAfterExit", true),
		property("IgnoreOnIsolate", true),
		property("Environment", environment(c.Env)),
		property("TimeoutStopUSec", uint64(defaultGrace.Microseconds())),
	}
	if c.Timeout > 0 {
		list = append(list, property("RuntimeMaxUSec", uint64(c.Timeout.Microseconds())))
	}
	if c.Log != "" {
		// A file, since a pipe would end with the agent and take the program along.
		list = append(list, property("StandardOutputFileToTruncate", c.Log), property("StandardError", "inherit"))
	}
	return list
}

func (r *systemdRunner) with(ctx context.Context, do func(*dbus.Conn) error) error {
	conn, err := r.connect(ctx)
	if err != nil {
		return fmt.Errorf("connect to systemd: %w", err)
	}
	defer conn.Close()
	return do(conn)
}

func (r *systemdRunner) start(ctx context.Context, c Command) error {
	return r.with(ctx, func(conn *dbus.Conn) error {
		done := make(chan string, 1)
		if _, err := conn.StartTransientUnitContext(ctx, c.Unit, "replace", properties(c), done); err != nil {
			return err
		}
		patience := time.NewTimer(stopPatience)
		defer patience.Stop()
		select {
		case <-done: // A failure shows in the state of the unit.
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-patience.C:
			return errors.New("systemd did not get to it")
		}
	})
}

// await reads the state of the unit until it ended. That systemd cannot be reached is
// borne until the command's time is over: it is away while it re-executes itself.
func (r *systemdRunner) await(ctx context.Context, c Command) (Result, error) {
	over := time.Now().Add(c.Timeout + stopPatience)
	tick := time.NewTicker(unitLook)
	defer tick.Stop()
	for {
		state, err := r.state(ctx, c.Unit)
		if err == nil {
			if result, ended := judge(state); ended {
				return result, nil
			}
		}
		if c.Timeout > 0 && time.Now().After(over) {
			// systemd should have ended it: clear tries again.
			return Result{ExitCode: -1, TimedOut: true}, err
		}
		select {
		case <-ctx.Done():
			return Result{ExitCode: -1}, context.Cause(ctx)
		case <-tick.C:
		}
	}
}

func (r *systemdRunner) state(ctx context.Context, unit string) (map[string]any, error) {
	var state map[string]any
	err := r.with(ctx, func(conn *dbus.Conn) (err error) {
		state, err = conn.GetAllPropertiesContext(ctx, unit)
		return err
	})
	return state, err
}

// judge reads the end of a unit from its properties. A unit that somebody stopped or that
// is not loaded any more has no exit code.
func judge(state map[string]any) (result Result, ended bool) {
	active, sub := state["ActiveState"], state["SubState"]
	if active != "failed" && active != "inactive" && sub != "exited" {
		return Result{}, false
	}
	result = Result{ExitCode: -1, TimedOut: state["Result"] == "timeout"}
	code, _ := state["ExecMainCode"].(int32)
	status, ok := state["ExecMainStatus"].(int32)
	if ok && code == childExited && state["LoadState"] == "loaded" {
		result.ExitCode = int(status)
	}
	return result, true
}

// clear stops the unit with all its processes and makes systemd forget it.
func (r *systemdRunner) clear(ctx context.Context, unit string) error {
	ctx, cancel := context.WithTimeout(ctx, stopPatience)
	defer cancel()
	return r.with(ctx, func(conn *dbus.Conn) error {
		done := make(chan string, 1)
		if _, err := conn.StopUnitContext(ctx, unit, "replace", done); err != nil {
			return ignoreUnknown(err)
		}
		select {
		case <-done:
		case <-ctx.Done():
			return fmt.Errorf("its processes do not end: %w", context.Cause(ctx))
		}
		return ignoreUnknown(conn.ResetFailedUnitContext(ctx, unit))
	})
}

func ignoreUnknown(err error) error {
	var answer godbus.Error
	if errors.As(err, &answer) && answer.Name == "org.freedesktop.systemd1.NoSuchUnit" {
		return nil
	}
	return err
}

// settleLog cuts the log to its bound and returns the end of what was printed.
func settleLog(name string) (string, error) {
	if name == "" {
		return "", nil
	}
	file, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return "", fmt.Errorf("open the log: %w", err)
	}
	stat, err := file.Stat()
	if err != nil {
		return "", errors.Join(fmt.Errorf("read the log: %w", err), file.Close())
	}
	tail := make([]byte, min(stat.Size(), maxOutput))
	_, err = file.ReadAt(tail, stat.Size()-int64(len(tail)))
	if errors.Is(err, io.EOF) {
		err = nil
	}
	if stat.Size() > maxLog {
		err = errors.Join(err, file.Truncate(maxLog))
	}
	return process.Text(tail), errors.Join(err, file.Close())
}
