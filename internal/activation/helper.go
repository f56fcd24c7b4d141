// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package activation

import (
	"context"
	"errors"
	"fmt"
	"time"

	"k8s.io/utils/clock"

	"github.com/nixfleet/nixfleet/internal/attempt"
)

const (
	// lockPatience is how long a helper waits for another change of the system to end.
	lockPatience = 30 * time.Second

	// armPatience is how long it tries to arm the second timer, which fails while
	// systemd re-executes itself.
	armPatience = 20 * time.Second

	// failedPatience is how long the agent has to go back after an activation that
	// failed, before the second timer does.
	failedPatience = 30 * time.Second

	// stageOneSlack is how much later than the activation's own time limit the first
	// timer fires.
	stageOneSlack = 30 * time.Second
)

// Stage is one of the two timers of the dead man's switch.
type Stage int

// Stages.
const (
	// StageActivation fires when an activation does not come to its end.
	StageActivation Stage = 1
	// StageConfirm fires when nobody has confirmed what was activated.
	StageConfirm Stage = 2
)

// Timers run the roll-back of an attempt at their time, whatever became of the agent.
type Timers interface {
	// Arm makes the stage fire after a time from now. One that is armed already is
	// armed anew.
	Arm(ctx context.Context, p attempt.Plan, s Stage, after time.Duration) error

	// Disarm stops it. One that is not armed is none of its business.
	Disarm(ctx context.Context, p attempt.Plan, s Stage) error
}

// StageOneAfter is when the first stage has to fire, from now on.
func StageOneAfter(p attempt.Plan) time.Duration { return p.ActivationTimeout() + stageOneSlack }

// Helper activates what a plan says and leaves on disk what became of it. It works in a
// process of its own where the agent may be replaced by what it activates.
type Helper struct {
	// Switch makes a system the running one.
	Switch interface {
		Test(ctx context.Context, s attempt.System, timeout time.Duration, id string) (Result, error)
	}

	// Timers are the dead man's switch; nil if there is none.
	Timers Timers

	// Freshen sees that the agent that runs afterwards is the one of the new system; nil
	// if that is not for the helper to do. It must not wait for the agent.
	Freshen func(ctx context.Context, p attempt.Plan) error

	// BootID tells boots of the machine apart.
	BootID string

	// Clock and Monotonic tell the time. Default: the real ones.
	Clock     clock.Clock
	Monotonic func() (time.Duration, error)
}

// ErrStarted means that the activation was begun before. It is never begun twice.
var ErrStarted = errors.New("the activation was begun before")

// ErrDecided means that the attempt was decided before its activation could begin.
var ErrDecided = errors.New("the attempt was decided already")

// Run activates. The error says that nothing was begun, or that what became of it could
// not be kept.
func (h *Helper) Run(ctx context.Context, d attempt.Dir) (attempt.Activation, error) {
	p, err := d.Plan()
	if err != nil {
		return attempt.Activation{}, err
	}
	release, err := h.lock(ctx, p)
	if err != nil {
		return attempt.Activation{}, err
	}
	defer release()
	if err := h.mayStart(d, p); err != nil {
		return attempt.Activation{}, fmt.Errorf("activate %s in attempt %d: %w", p.Target, p.Number, err)
	}
	record := attempt.Activation{BootID: h.BootID, StartedAt: h.clock().Now().UTC(), ExitCode: -1}
	if err := d.SaveActivation(record); err != nil {
		return attempt.Activation{}, err
	}
	result, err := h.Switch.Test(ctx, p.Target, p.ActivationTimeout(), p.ID())
	if ctx.Err() != nil {
		// This process is being ended: whoever ends it knows what to do next.
		return record, context.Cause(ctx)
	}
	h.fill(&record, result, err)
	h.protect(ctx, p, &record)
	if err := d.SaveActivation(record); err != nil {
		return record, err
	}
	return record, h.after(ctx, p, record)
}

func (h *Helper) lock(ctx context.Context, p attempt.Plan) (func(), error) {
	ctx, cancel := context.WithTimeout(ctx, lockPatience)
	defer cancel()
	return attempt.Lock(ctx, p.StateDir)
}

// mayStart is asked with the lock held: a dead man who has decided has it later.
func (h *Helper) mayStart(d attempt.Dir, p attempt.Plan) error {
	decision, err := d.Decision()
	if err != nil {
		return err
	}
	before, err := d.Activation()
	switch {
	case err != nil:
		return err
	case decision != attempt.Undecided:
		return fmt.Errorf("%w: %s", ErrDecided, decision)
	case !before.StartedAt.IsZero():
		return ErrStarted
	case p.BootID != h.BootID:
		return fmt.Errorf("the plan was made before the machine was booted")
	default:
		return nil
	}
}

func (h *Helper) fill(record *attempt.Activation, result Result, err error) {
	begun := *record
	*record = Record(result, err)
	record.BootID, record.StartedAt, record.EndedAt = begun.BootID, begun.StartedAt, h.clock().Now().UTC()
}

// Record is what is kept of the end of a run.
func Record(result Result, err error) attempt.Activation {
	record := attempt.Activation{Ended: true, ExitCode: result.ExitCode, TimedOut: result.TimedOut, Output: result.Output, ScriptFailed: result.ScriptFailed}
	if err != nil {
		record.ExitCode, record.Error = -1, err.Error()
	}
	if result.LogErr != nil {
		record.Note = "its output was not kept whole: " + result.LogErr.Error()
	}
	return record
}

// protect arms the second timer. If that cannot be done the first one stays, so that
// somebody goes back all the same.
func (h *Helper) protect(ctx context.Context, p attempt.Plan, record *attempt.Activation) {
	if h.Timers == nil {
		return
	}
	after := p.HealthBudget() + p.ConfirmTimeout()
	if Verdict(*record) == VerdictFailed {
		after = failedPatience
	}
	now, err := h.monotonic()
	if err == nil {
		err = h.arm(ctx, p, after)
	}
	if err != nil {
		record.Note = "the second timer of the dead man's switch could not be armed, so the first one stays: " + err.Error()
		record.ConfirmBy = p.ActivateBy
		return
	}
	record.ConfirmBy = int64(now + after)
}

func (h *Helper) arm(ctx context.Context, p attempt.Plan, after time.Duration) error {
	over := h.clock().Now().Add(armPatience)
	for {
		err := h.Timers.Arm(ctx, p, StageConfirm, after)
		if err == nil || h.clock().Now().After(over) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-h.clock().After(firstRetry):
		}
	}
}

// after is what is done when the outcome is on disk.
func (h *Helper) after(ctx context.Context, p attempt.Plan, record attempt.Activation) error {
	var errs []error
	if h.Timers != nil && record.ConfirmBy != p.ActivateBy {
		errs = append(errs, h.Timers.Disarm(ctx, p, StageActivation))
	}
	if h.Freshen != nil {
		errs = append(errs, h.Freshen(ctx, p))
	}
	return errors.Join(errs...)
}

func (h *Helper) clock() clock.Clock {
	if h.Clock == nil {
		return clock.RealClock{}
	}
	return h.Clock
}

func (h *Helper) monotonic() (time.Duration, error) {
	if h.Monotonic == nil {
		return attempt.Monotonic()
	}
	return h.Monotonic()
}
