// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package deadman

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"k8s.io/utils/clock"

	"github.com/nixfleet/nixfleet/internal/activation"
	"github.com/nixfleet/nixfleet/internal/attempt"
	"github.com/nixfleet/nixfleet/internal/nix"
)

// How long each step may take. Together they are less than half an hour, most of it for a
// machine on which everything hangs.
const (
	stopTime    = 45 * time.Second
	lockTime    = 15 * time.Minute // a ladder that another process climbs
	profileTime = time.Minute
	bootTime    = 2 * time.Minute
	testTime    = 5 * time.Minute
	agentTime   = 30 * time.Second
	rebootTime  = time.Minute
)

// Host is the machine, as far as going back needs it.
type Host interface {
	// StopActivation ends what runs of the attempt's activation, with every process that
	// it has started, and returns when all are gone.
	StopActivation(ctx context.Context) error

	// RestoreProfile brings the system profile back to its state before.
	RestoreProfile(ctx context.Context, state nix.ProfileState) error

	// Boot makes a system of the profile the boot default, by its own program.
	Boot(ctx context.Context, path nix.StorePath, timeout time.Duration) (activation.Result, error)

	// Test makes a system the running one by its own program, which checks nothing.
	Test(ctx context.Context, s attempt.System, timeout time.Duration) (activation.Result, error)

	// Running is what runs.
	Running() (attempt.System, error)

	// Recovered reports what worked before and does not work now. It waits for it, and
	// says nothing while all is well.
	Recovered(ctx context.Context) error

	// StartAgent starts the agent's unit if it does not run.
	StartAgent(ctx context.Context) error

	// CanReboot says whether this is a machine of its own, which comes back from a reboot
	// with its boot default.
	CanReboot() bool

	// Reboot boots the machine into its boot default, by force.
	Reboot(ctx context.Context) error
}

// Ladder goes back, one bounded step after the other.
type Ladder struct {
	Host Host

	// Trigger is who goes back.
	Trigger string

	// BootID tells boots of the machine apart.
	BootID string

	// Clock tells the time, for records.
	Clock clock.PassiveClock

	// Log takes what an administrator of the host should find.
	Log *slog.Logger
}

// ErrCommitted means that the attempt was committed: nobody goes back from there.
var ErrCommitted = errors.New("the attempt was committed")

// ErrClosed means that the attempt is over: there is nothing to go back from.
var ErrClosed = errors.New("the attempt is over")

// Decide decides that the attempt's host goes back. The error wraps ErrCommitted if it
// was decided otherwise, and ErrClosed if it is too late.
func Decide(d attempt.Dir) error {
	closed, err := d.Closed()
	if err != nil {
		return err
	}
	if closed {
		return ErrClosed
	}
	if _, err := d.Decide(attempt.Rollback); err != nil {
		return err
	}
	may, err := d.MayRollBack()
	if err == nil && !may {
		err = ErrCommitted
	}
	return err
}

// Climb goes back. It may be done any number of times and by several processes: they take
// turns, and what one has finished the next one leaves alone. The error says that nothing
// was done, or that it has to be tried again; what did not work is in the record.
func (l *Ladder) Climb(ctx context.Context, d attempt.Dir) (attempt.RollbackRecord, error) {
	p, err := d.Plan()
	if err != nil {
		return attempt.RollbackRecord{}, err
	}
	if err := Decide(d); err != nil {
		return attempt.RollbackRecord{}, err
	}
	if done, err := l.done(d); err != nil || done != nil {
		return deref(done), err
	}
	c := &climb{
		Ladder: l, dir: d, plan: p, sameBoot: p.BootID == l.BootID,
		record: attempt.RollbackRecord{Trigger: l.Trigger, StartedAt: l.Clock.Now().UTC()},
	}
	// The helper holds the lock, so it is ended first.
	stopped := c.step(ctx, stopTime, "stop the activation", func(ctx context.Context) error { return l.Host.StopActivation(ctx) })
	switch {
	case ctx.Err() != nil:
		return c.record, context.Cause(ctx)
	case !stopped && !l.Host.CanReboot():
		return c.record, fmt.Errorf("go back: %w", c.last)
	case !stopped:
		// Nothing can be done beside it, and it has the lock.
		return c.climb(ctx, false)
	}
	release, err := lock(ctx, p)
	if err != nil {
		return c.record, err
	}
	defer release()
	if done, err := l.done(d); err != nil || done != nil {
		return deref(done), err
	}
	c.save()
	return c.climb(ctx, true)
}

func deref(r *attempt.RollbackRecord) attempt.RollbackRecord {
	if r == nil {
		return attempt.RollbackRecord{}
	}
	return *r
}

// done is the record of a ladder that was climbed to its end.
func (l *Ladder) done(d attempt.Dir) (*attempt.RollbackRecord, error) {
	r, err := d.Rollback()
	if err != nil || r.Outcome != attempt.RolledBack {
		return nil, err
	}
	return &r, nil
}

func lock(ctx context.Context, p attempt.Plan) (func(), error) {
	ctx, cancel := context.WithTimeout(ctx, lockTime)
	defer cancel()
	return attempt.Lock(ctx, p.StateDir)
}

// climb is one run of the ladder.
type climb struct {
	*Ladder
	dir    attempt.Dir
	plan   attempt.Plan
	record attempt.RollbackRecord

	// sameBoot: the attempt belongs to this boot. In another one the host came back by
	// itself, or it never will.
	sameBoot bool

	// active: the program of what ran before has ended, well enough. looseEnd: profile or
	// boot default may still name the new system.
	active, looseEnd bool

	// last is the last problem.
	last error
}

// climb takes the steps. Beside an activation that could not be stopped only the last one
// is left.
func (c *climb) climb(ctx context.Context, alone bool) (attempt.RollbackRecord, error) {
	if alone {
		c.back(ctx)
	}
	if ctx.Err() != nil {
		return c.record, context.Cause(ctx)
	}
	// What ran before needs its agent, whatever else is wrong.
	c.step(ctx, agentTime, "start the agent", c.Host.StartAgent)
	well := c.active && c.runsPrevious() && c.recovered(ctx)
	if ctx.Err() != nil {
		return c.record, context.Cause(ctx)
	}
	switch {
	case well && !c.looseEnd:
		c.end(attempt.RolledBack)
	case !c.looseEnd && c.reboot(ctx):
		// A loose end would lead back to where the host came from.
	case c.active && c.runsPrevious() && !c.looseEnd:
		// What is wrong with it no further step can mend.
		c.end(attempt.RolledBack)
	default:
		c.end(attempt.RollbackFailed)
	}
	return c.record, nil
}

// back restores profile, boot default and running system, in this order: should the last
// step hang, a reset leads back.
func (c *climb) back(ctx context.Context) {
	touched, err := c.dir.ProfileTouched()
	if err != nil || touched {
		c.problem(err)
		c.looseEnd = !c.restoreBoot(ctx)
	}
	if c.plan.Previous.Path == "" {
		c.problem(errors.New("nothing ran before"))
		return
	}
	// In the same boot a running system that looks right may be half changed.
	if !c.sameBoot && c.runsPrevious() {
		c.active = true
		return
	}
	c.Log.Info("Going back", "attempt", c.plan.Number, "to", c.plan.Previous)
	ended := make(chan attempt.Activation, 1)
	c.step(ctx, testTime+stopTime, "activate "+c.plan.Previous.String(), func(ctx context.Context) error {
		result, err := c.Host.Test(ctx, c.plan.Previous, testTime)
		ended <- activation.Record(result, err)
		return resultError(result, err)
	})
	select {
	case a := <-ended:
		// Units that do not start again are for the health checks to judge.
		c.active, c.record.Output = activation.Verdict(a) != activation.VerdictFailed, a.Output
	default: // it was given up
	}
	if ctx.Err() == nil && !c.runsPrevious() {
		running, err := c.Host.Running()
		c.problem(errors.Join(fmt.Errorf("%q runs", running), err))
	}
}

func (c *climb) restoreBoot(ctx context.Context) bool {
	want := c.plan.PreviousProfile
	restored := c.step(ctx, profileTime, "restore the profile", func(ctx context.Context) error {
		return c.Host.RestoreProfile(ctx, want)
	})
	// The loader's entries are made from the profile.
	if !restored || want.Path == "" {
		return restored
	}
	return c.step(ctx, bootTime+stopTime, "restore the boot default", func(ctx context.Context) error {
		return resultError(c.Host.Boot(ctx, want.Path, bootTime))
	})
}

func resultError(r activation.Result, err error) error {
	switch {
	case err != nil:
		return err
	case r.TimedOut:
		return errors.New("switch-to-configuration did not end in time and was stopped")
	case r.ExitCode != 0:
		return fmt.Errorf("switch-to-configuration exited with %d", r.ExitCode)
	default:
		return nil
	}
}

func (c *climb) runsPrevious() bool {
	running, err := c.Host.Running()
	return err == nil && running == c.plan.Previous && running.Path != ""
}

// recovered waits for what worked before the attempt.
func (c *climb) recovered(ctx context.Context) bool {
	wait := c.plan.HealthBudget() + c.plan.ConfirmTimeout()
	return c.step(ctx, wait, "wait for what worked before", c.Host.Recovered)
}

// reboot is the last step. It is taken once an attempt, and only in the boot that the
// attempt belongs to, so that it cannot go on for ever even if nothing can be written.
func (c *climb) reboot(ctx context.Context) bool {
	if !c.Host.CanReboot() || !c.sameBoot {
		return false
	}
	first, err := c.dir.Reboot()
	c.problem(err)
	if err == nil && !first {
		return false
	}
	c.end(attempt.Rebooting)
	c.Log.Error("Rebooting into the boot default, since the host did not come back", "problems", c.record.Problems)
	return c.step(ctx, rebootTime, "reboot", c.Host.Reboot)
}

// step does one thing within its time and notes what went wrong.
func (c *climb) step(ctx context.Context, most time.Duration, what string, do func(context.Context) error) bool {
	sctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	done := start(sctx, do)
	var e ending
	select {
	case e = <-done:
	case <-sctx.Done():
		// A system call that hangs, on a disk that is gone for one, must not hold the
		// ladder up; what only needs a moment to give up gets it.
		select {
		case e = <-done:
		case <-time.After(grace):
			e.err = context.Cause(sctx)
		}
	}
	if e.panicked != nil {
		panic(e.panicked)
	}
	err := e.err
	if err != nil && ctx.Err() == nil {
		c.problem(fmt.Errorf("%s: %w", what, err))
	}
	return err == nil
}

// ending is how a step ended. A panic is the caller's, as if there were no goroutine.
type ending struct {
	err      error
	panicked any
}

func start(ctx context.Context, do func(context.Context) error) <-chan ending {
	done := make(chan ending, 1)
	go func() {
		defer func() {
			if r := recover(); r != nil {
				done <- ending{panicked: r}
			}
		}()
		done <- ending{err: do(ctx)}
	}()
	return done
}

// grace is how long a step may take to notice that its time is over.
const grace = 5 * time.Second

func (c *climb) problem(err error) {
	if err == nil {
		return
	}
	c.Log.Error("Going back", "attempt", c.plan.Number, "problem", err)
	c.last = err
	c.record.Problems = append(c.record.Problems, err.Error())
}

func (c *climb) end(outcome attempt.RollbackOutcome) {
	c.record.Outcome, c.record.EndedAt = outcome, c.Clock.Now().UTC()
	c.save()
	c.Log.Info("The way back has ended", "attempt", c.plan.Number, "outcome", outcome)
}

// save keeps the record if it can: going back must not depend on room on a disk.
func (c *climb) save() {
	if err := c.dir.SaveRollback(c.record); err != nil {
		c.Log.Error("Keep what became of the way back", "error", err)
	}
}
