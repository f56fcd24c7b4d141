// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package activation

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"

	"github.com/nixfleet/nixfleet/internal/attempt"
)

// Units keeps the helper, the roll-back and the dead man's timers of an attempt as
// transient units of systemd. It speaks to systemd itself over its private socket, so
// that it works without a message bus.
type Units struct {
	systemd *systemdRunner
}

// NewUnits returns the units of this machine, or nil if systemd does not run it.
func NewUnits() *Units {
	if r, ok := NewRunner("/").(*systemdRunner); ok {
		return &Units{systemd: r}
	}
	return nil
}

var _ Timers = (*Units)(nil)

func prop(name string, value any) dbus.Property {
	return dbus.Property{Name: name, Value: godbus.MakeVariant(value)}
}

// unbound are the properties of what has to survive when systemd stops all that is usual:
// emergency mode stops every unit that depends on sysinit.target, as all do by default,
// and an isolated target every other.
func unbound(description string) []dbus.Property {
	return []dbus.Property{
		dbus.PropDescription(description),
		prop("DefaultDependencies", false),
		prop("IgnoreOnIsolate", true),
		prop("CollectMode", "inactive-or-failed"),
	}
}

// service runs a program without anything that could fail before it begins: no log, no
// directory, no identity to look up. The program keeps a log of its own.
func service(description string, argv []string) []dbus.Property {
	return append(unbound(description),
		dbus.PropExecStart(argv, false),
		prop("StandardInput", "null"),
		prop("StandardOutput", "null"),
		prop("StandardError", "null"),
		prop("OOMScoreAdjust", int32(-900)),
		prop("TimeoutStartUSec", uint64(math.MaxUint64)),
		prop("TimeoutStopUSec", uint64(defaultGrace.Microseconds())),
	)
}

// Arm implements Timers.
func (u *Units) Arm(ctx context.Context, p attempt.Plan, s Stage, after time.Duration) error {
	type monotonic struct {
		Base string
		USec uint64
	}
	name := TimerName(p, s)
	timer := append(unbound("NixFleet: dead man's switch of attempt "+p.ID()),
		prop("TimersMonotonic", []monotonic{{"OnActiveSec", uint64(max(after, 0).Microseconds())}}), //nolint:gosec // not negative
		prop("AccuracyUSec", uint64(time.Second.Microseconds())),
		prop("RemainAfterElapse", false),
	)
	aux := []dbus.PropertyCollection{{
		Name: name + ".service",
		Properties: append(service("NixFleet: roll back attempt "+p.ID(), rollbackArgs(p, timerTrigger(s))),
			prop("Type", "oneshot")),
	}}
	ctx, cancel := context.WithTimeout(ctx, stopPatience)
	defer cancel()
	if err := u.Disarm(ctx, p, s); err != nil {
		return err
	}
	err := u.systemd.with(ctx, func(conn *dbus.Conn) error {
		done := make(chan string, 1)
		if _, err := conn.StartTransientUnitAux(ctx, name+".timer", "replace", timer, aux, done); err != nil {
			return err
		}
		return awaitJob(ctx, done)
	})
	if err != nil {
		return fmt.Errorf("arm %s.timer: %w", name, err)
	}
	return nil
}

func awaitJob(ctx context.Context, done <-chan string) error {
	select {
	case result := <-done:
		if result != "done" {
			return fmt.Errorf("systemd's job ended as %q", result)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("systemd did not get to it: %w", context.Cause(ctx))
	}
}

// Disarm implements Timers. A roll-back that its timer has begun is left alone.
func (u *Units) Disarm(ctx context.Context, p attempt.Plan, s Stage) error {
	if err := u.systemd.clear(ctx, TimerName(p, s)+".timer"); err != nil {
		return fmt.Errorf("disarm %s.timer: %w", TimerName(p, s), err)
	}
	return nil
}

// StartActivation runs the helper of an attempt in a unit of its own. If that runs
// already nothing happens.
func (u *Units) StartActivation(ctx context.Context, p attempt.Plan) error {
	properties := append(service("NixFleet: activate "+p.Target.String(), activateArgs(p)),
		prop("Type", "exec"),
		// An orderly end of the machine comes first, unlike emergency mode.
		dbus.PropConflicts("shutdown.target"), dbus.PropBefore("shutdown.target"),
	)
	return u.start(ctx, ActivateUnit(p), properties)
}

// StartRollback goes back in a unit of its own, which survives that the agent is stopped
// by what it goes back to. If that runs already nothing happens.
func (u *Units) StartRollback(ctx context.Context, p attempt.Plan) error {
	properties := append(service("NixFleet: roll back attempt "+p.ID(), rollbackArgs(p, TriggerAgent)), prop("Type", "exec"))
	return u.start(ctx, RollbackUnit(p), properties)
}

func (u *Units) start(ctx context.Context, unit string, properties []dbus.Property) error {
	ctx, cancel := context.WithTimeout(ctx, stopPatience)
	defer cancel()
	err := u.systemd.with(ctx, func(conn *dbus.Conn) error {
		done := make(chan string, 1)
		_, err := conn.StartTransientUnitContext(ctx, unit, "fail", properties, done)
		var answer godbus.Error
		if errors.As(err, &answer) && answer.Name == "org.freedesktop.systemd1.UnitExists" {
			return nil
		}
		if err != nil {
			return err
		}
		return awaitJob(ctx, done)
	})
	if err != nil {
		return fmt.Errorf("start %s: %w", unit, err)
	}
	return nil
}

// Active reports whether a unit runs, is about to, or has processes left.
func (u *Units) Active(ctx context.Context, unit string) (bool, error) {
	state, err := u.systemd.state(ctx, unit)
	if err != nil {
		return false, fmt.Errorf("ask for the state of %s: %w", unit, err)
	}
	switch state["ActiveState"] {
	case "active", "activating", "deactivating", "reloading", "refreshing":
		return true, nil
	}
	// A job that waits will start it.
	if job, ok := state["Job"].([]any); ok && len(job) > 0 {
		if id, ok := job[0].(uint32); ok && id != 0 {
			return true, nil
		}
	}
	return false, nil
}

// StopActivation ends the helper of an attempt with all that it has started, and a job
// that would still start it.
func (u *Units) StopActivation(ctx context.Context, p attempt.Plan) error {
	if err := u.systemd.clear(ctx, ActivateUnit(p)); err != nil {
		return fmt.Errorf("stop %s: %w", ActivateUnit(p), err)
	}
	return nil
}
