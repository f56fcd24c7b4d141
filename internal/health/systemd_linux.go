// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package health

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"

	"github.com/nixfleet/nixfleet/internal/process"
)

const (
	// execGrace is how long a command may take to end after SIGTERM.
	execGrace = time.Second

	// managerPatience is how much longer than a command itself systemd may take.
	managerPatience = 15 * time.Second

	// drainPatience is how long the end of an output is waited for, when all processes
	// that could write to it are gone.
	drainPatience = time.Second

	childExited = 1 // CLD_EXITED
)

// systemd talks to the manager of the machine over a connection for each question: there
// is one a minute, and a connection would not outlive a re-execution.
type systemd struct {
	connect func(ctx context.Context) (*dbus.Conn, error)
}

func (s *systemd) with(ctx context.Context, do func(*dbus.Conn) error) error {
	conn, err := s.connect(ctx)
	if err != nil {
		return fmt.Errorf("connect to systemd: %w", err)
	}
	defer conn.Close()
	return do(conn)
}

// Named implements UnitManager.
func (s *systemd) Named(ctx context.Context, names []string) ([]Unit, error) {
	var units []Unit
	err := s.with(ctx, func(conn *dbus.Conn) error {
		list, err := conn.ListUnitsByNamesContext(ctx, names)
		if err != nil {
			return err
		}
		for _, status := range list {
			u := unit(status)
			if err := fill(ctx, conn, &u); err != nil {
				return err
			}
			units = append(units, u)
		}
		return nil
	})
	return units, err
}

// Snapshot implements UnitManager.
func (s *systemd) Snapshot(ctx context.Context) (UnitSnapshot, error) {
	var snapshot UnitSnapshot
	err := s.with(ctx, func(conn *dbus.Conn) error {
		list, err := conn.ListUnitsContext(ctx)
		if err != nil {
			return fmt.Errorf("list the units: %w", err)
		}
		for _, status := range list {
			u := unit(status)
			if !u.failed() && (!isService(u.Name) || u.Active == "inactive") {
				continue
			}
			if err := fill(ctx, conn, &u); err != nil {
				return err
			}
			snapshot.Units = append(snapshot.Units, u)
		}
		jobs, err := conn.ListJobsContext(ctx)
		snapshot.Jobs = len(jobs)
		return err
	})
	return snapshot, err
}

func unit(s dbus.UnitStatus) Unit {
	return Unit{Name: s.Name, Load: s.LoadState, Active: s.ActiveState, Sub: s.SubState}
}

func isService(name string) bool { return strings.HasSuffix(name, ".service") }

// fill adds what the list of units does not say. A unit that is gone meanwhile is none of
// anybody's business.
func fill(ctx context.Context, conn *dbus.Conn, u *Unit) error {
	if isService(u.Name) && u.Load == "loaded" {
		restarts, err := conn.GetUnitTypePropertyContext(ctx, u.Name, "Service", "NRestarts")
		if err != nil {
			return ignoreGone(err)
		}
		u.Restarts, _ = restarts.Value.Value().(uint32)
	}
	if !u.troubled() {
		return nil
	}
	transient, err := conn.GetUnitPropertyContext(ctx, u.Name, "Transient")
	if err != nil {
		return ignoreGone(err)
	}
	u.Transient, _ = transient.Value.Value().(bool)
	if isService(u.Name) {
		result, err := conn.GetUnitTypePropertyContext(ctx, u.Name, "Service", "Result")
		if err != nil {
			return ignoreGone(err)
		}
		u.Result, _ = result.Value.Value().(string)
	}
	return nil
}

func ignoreGone(err error) error {
	var answer godbus.Error
	if errors.As(err, &answer) && (answer.Name == "org.freedesktop.systemd1.NoSuchUnit" || answer.Name == "org.freedesktop.DBus.Error.UnknownObject") {
		return nil
	}
	return err
}

// Run implements UnitManager.
func (s *systemd) Run(ctx context.Context, c TransientCommand, w io.Writer) (process.Outcome, error) {
	failed := process.Outcome{ExitCode: -1}
	// A pipe, since a file would be a write to the disk at each check.
	read, write, err := os.Pipe()
	if err != nil {
		return failed, fmt.Errorf("make a pipe: %w", err)
	}
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		_, _ = io.Copy(w, read) // its end is the deadline below, or that nobody writes any more
	}()
	runCtx, cancel := context.WithTimeout(ctx, c.Timeout+managerPatience)
	defer cancel()
	outcome := failed
	err = s.with(runCtx, func(conn *dbus.Conn) error {
		outcome, err = s.run(runCtx, conn, c, write)
		return err
	})
	if err != nil {
		s.stop(ctx, c.Unit)
	}
	err = errors.Join(err, write.Close(), read.SetReadDeadline(time.Now().Add(drainPatience)))
	<-drained
	return outcome, errors.Join(err, read.Close())
}

func (s *systemd) run(ctx context.Context, conn *dbus.Conn, c TransientCommand, write *os.File) (process.Outcome, error) {
	failed := process.Outcome{ExitCode: -1}
	// One that has failed is left if the agent was killed before it could forget it.
	if err := ignoreGone(conn.ResetFailedUnitContext(ctx, c.Unit)); err != nil {
		return failed, fmt.Errorf("forget an earlier %s: %w", c.Unit, err)
	}
	done := make(chan string, 1)
	if _, err := conn.StartTransientUnitContext(ctx, c.Unit, "replace", properties(c, write), done); err != nil {
		return failed, fmt.Errorf("start %s: %w", c.Unit, err)
	}
	select {
	case <-ctx.Done():
		return failed, fmt.Errorf("wait for %s: %w", c.Unit, context.Cause(ctx))
	case result := <-done:
		if result == "done" {
			return process.Outcome{}, nil
		}
	}
	state, err := conn.GetAllPropertiesContext(ctx, c.Unit)
	if err != nil {
		return failed, fmt.Errorf("read how %s ended: %w", c.Unit, err)
	}
	return outcome(state), ignoreGone(conn.ResetFailedUnitContext(ctx, c.Unit))
}

// outcome reads how a unit failed.
func outcome(state map[string]any) process.Outcome {
	out := process.Outcome{ExitCode: -1, TimedOut: state["Result"] == "timeout"}
	code, _ := state["ExecMainCode"].(int32)
	status, ok := state["ExecMainStatus"].(int32)
	if ok && code == childExited && status != 0 {
		out.ExitCode = int(status)
	}
	return out
}

// stop ends a unit whose end was not seen. It has a moment of its own: the context may be
// what ended.
func (s *systemd) stop(ctx context.Context, unit string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), managerPatience)
	defer cancel()
	// Without success the unit's own time limit ends it.
	_ = s.with(ctx, func(conn *dbus.Conn) error {
		stopped := make(chan string, 1)
		if _, err := conn.StopUnitContext(ctx, unit, "replace", stopped); err != nil {
			return err
		}
		select { // a unit that is killed may end as failed, and would stay as that
		case <-stopped:
		case <-ctx.Done():
		}
		return conn.ResetFailedUnitContext(ctx, unit)
	})
}

func properties(c TransientCommand, out *os.File) []dbus.Property {
	property := func(name string, value any) dbus.Property {
		return dbus.Property{Name: name, Value: godbus.MakeVariant(value)}
	}
	argv := []string{c.Program}
	for _, arg := range c.Args {
		// systemd would put variables of the environment in.
		argv = append(argv, strings.ReplaceAll(arg, "$", "$$"))
	}
	fd := godbus.UnixFD(out.Fd()) //nolint:gosec // a file descriptor is small
	list := []dbus.Property{
		dbus.PropDescription(c.Description),
		dbus.PropExecStart(argv, false),
		// The job of starting it ends with the command, and then nothing of it is left.
		property("Type", "oneshot"),
		property("Environment", []string{minimalPath}),
		property("WorkingDirectory", "/"),
		property("TimeoutStartUSec", uint64(c.Timeout.Microseconds())), //nolint:gosec // it is positive
		property("TimeoutStopUSec", uint64(execGrace.Microseconds())),  //nolint:gosec // it is positive
		property("StandardOutputFileDescriptor", fd),
		property("StandardErrorFileDescriptor", fd),
	}
	if c.User == "" {
		return append(list, property("DynamicUser", true))
	}
	return append(list, property("User", c.User))
}
