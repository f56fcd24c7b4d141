// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package agent

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/nixfleet/nixfleet/internal/activation"
	"github.com/nixfleet/nixfleet/internal/attempt"
)

const (
	// recordLook is how often the records of a unit are looked for.
	recordLook = 250 * time.Millisecond

	// silencePatience is how long systemd may be unreachable: it is for a moment while it
	// re-executes itself.
	silencePatience = time.Minute

	// rebootPatience is how long a machine that is being rebooted may go on.
	rebootPatience = 5 * time.Minute
)

// unitHands carry attempts out in units of systemd, which live on while the agent is
// replaced, and have its timers go back if nobody else does.
type unitHands struct {
	*activation.NixOS
	units *activation.Units
	self  attempt.Agent
	log   *slog.Logger
}

var _ Activator = (*unitHands)(nil)

// newHands returns the hands for a host, and completes the plan of every attempt on it.
func newHands(base *attempt.Plan, os *activation.NixOS, self attempt.Agent, log *slog.Logger) Activator {
	units := activation.NewUnits()
	if base.Root != "/" || units == nil {
		log.Info("No dead man's switch: systemd does not run this host, so that its agent alone goes back", "root", base.Root)
		return &directHands{NixOS: os, bootID: bootID(), log: log}
	}
	base.Protection = attempt.ProtectionTimers
	base.Tools.Systemctl = findTool("systemctl")
	base.AgentUnit = activation.OwnUnit()
	return &unitHands{NixOS: os, units: units, self: self, log: log}
}

// Arm implements Activator.
func (h *unitHands) Arm(ctx context.Context, p attempt.Plan) error {
	now, err := attempt.Monotonic()
	if err != nil {
		return err
	}
	return h.units.Arm(ctx, p, activation.StageActivation, time.Duration(p.ActivateBy)-now)
}

// Settle implements Activator.
func (h *unitHands) Settle(ctx context.Context, p attempt.Plan) error {
	return errors.Join(
		h.units.Disarm(ctx, p, activation.StageActivation),
		h.units.Disarm(ctx, p, activation.StageConfirm))
}

// Stale implements Activator. An agent that is no unit is replaced by nothing.
func (h *unitHands) Stale(ctx context.Context, p attempt.Plan) (string, error) {
	if p.AgentUnit == "" {
		return "", nil
	}
	return h.units.Stale(ctx, p.AgentUnit, h.self)
}

// errLost means that the helper ended without a word.
var errLost = errors.New("the activation ended and left no result")

// Activate implements Activator.
func (h *unitHands) Activate(ctx context.Context, p attempt.Plan) (attempt.Activation, error) {
	if err := h.units.StartActivation(ctx, p); err != nil {
		return attempt.Activation{}, err
	}
	a, joined, err := h.Join(ctx, p)
	if err == nil && !joined {
		err = errLost
	}
	return a, err
}

// Join implements Activator.
func (h *unitHands) Join(ctx context.Context, p attempt.Plan) (attempt.Activation, bool, error) {
	if err := h.awaitEnd(ctx, activation.ActivateUnit(p)); err != nil {
		return attempt.Activation{}, false, err
	}
	a, err := attempt.At(p.StateDir, p.Number).Activation()
	return a, err == nil && a.Ended, err
}

// awaitEnd waits until a unit has no process any more.
func (h *unitHands) awaitEnd(ctx context.Context, unit string) error {
	tick := time.NewTicker(recordLook)
	defer tick.Stop()
	heard := time.Now()
	for {
		active, err := h.units.Active(ctx, unit)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err == nil && !active:
			return nil
		case err == nil:
			heard = time.Now()
		case time.Since(heard) > silencePatience:
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// Rollback implements Activator. The unit waits for a timer's that is under way, and
// leaves alone what that has finished.
func (h *unitHands) Rollback(ctx context.Context, p attempt.Plan) (attempt.RollbackRecord, error) {
	d := attempt.At(p.StateDir, p.Number)
	if r, err := d.Rollback(); err == nil && r.Outcome == attempt.RolledBack {
		return r, nil
	}
	if err := h.units.StartRollback(ctx, p); err != nil {
		return attempt.RollbackRecord{}, err
	}
	if err := h.awaitEnd(ctx, activation.RollbackUnit(p)); err != nil {
		return attempt.RollbackRecord{}, err
	}
	r, err := d.Rollback()
	switch {
	case err != nil:
		return r, err
	case r.Outcome == "":
		return r, errors.New("the roll-back ended and left no result")
	case r.Outcome == attempt.Rebooting && p.BootID == bootID():
		select {
		case <-ctx.Done():
			return r, context.Cause(ctx)
		case <-time.After(rebootPatience):
			return r, errors.New("the machine was told to reboot and did not")
		}
	}
	return r, nil
}

// systemdAnswers reports whether systemd runs this machine, and the error whether it can be
// spoken to.
func systemdAnswers(ctx context.Context) (bool, error) {
	units := activation.NewUnits()
	if units == nil {
		return false, nil
	}
	_, err := units.Active(ctx, defaultAgentUnit)
	return true, err
}

// newHelper is the helper for a plan, in this process.
func newHelper(p attempt.Plan) *activation.Helper {
	h := &activation.Helper{
		Switch: &activation.NixOS{Root: p.Root, Runner: &activation.DirectRunner{Root: p.Root}, LogDir: filepath.Join(p.StateDir, "logs")},
		BootID: bootID(),
	}
	if units := activation.NewUnits(); units != nil && p.Protection == attempt.ProtectionTimers {
		h.Timers, h.Freshen = units, units.Freshen
	}
	return h
}
