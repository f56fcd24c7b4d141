// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/activation"
	"github.com/nixfleet/nixfleet/internal/attempt"
	"github.com/nixfleet/nixfleet/internal/bootloader"
	"github.com/nixfleet/nixfleet/internal/nix"
)

// activate records what there is to go back to, sees that somebody would go back, and runs
// the system's own program. The profile is not touched: a host that loses power now comes
// back on the old system.
func (m *Machine) activate(ctx context.Context, target nix.StorePath) (bool, error) {
	if done, err := m.prepare(ctx); done || err != nil {
		return true, err
	}
	// What somebody activated by hand needs no second activation, only the commit.
	if m.runsHealthy(ctx, target) {
		return false, nil
	}
	if ctx.Err() != nil {
		return true, ctx.Err()
	}
	if err := m.Activator.Arm(ctx, *m.plan); err != nil {
		if ctx.Err() != nil {
			return true, ctx.Err()
		}
		return true, m.finish(ctx, nfv1.AttemptFailed, nfv1.ReasonInternalError, "nothing was changed: "+err.Error())
	}
	record, err := m.Activator.Activate(ctx, *m.plan)
	return m.activated(ctx, record, err)
}

// prepare looks whether the system can be activated at all and writes the plan. It ends
// the attempt if either fails, with nothing changed.
func (m *Machine) prepare(ctx context.Context) (bool, error) {
	units, err := m.unitsBefore(ctx)
	if err == nil {
		err = m.recordBaseline(ctx)
	}
	if ctx.Err() != nil {
		return true, ctx.Err()
	}
	if err != nil {
		return true, m.finish(ctx, nfv1.AttemptFailed, nfv1.ReasonInternalError, "nothing was changed: "+err.Error())
	}
	o := m.journal.Open
	previous := attempt.System{Path: o.Previous, Specialisation: o.PreviousSpecialisation}
	var refusal *Refusal
	switch err := m.Source.Preflight(ctx, previous, m.targetSystem()); {
	case errors.As(err, &refusal):
		return true, m.finish(ctx, nfv1.AttemptRefused, refusal.Reason, "nothing was changed: "+refusal.Error())
	case err != nil && ctx.Err() != nil:
		return true, ctx.Err()
	case err != nil:
		return true, m.finish(ctx, nfv1.AttemptFailed, nfv1.ReasonInternalError, "nothing was changed: "+err.Error())
	}
	if err := m.makePlan(ctx, units); err != nil {
		return true, m.finish(ctx, nfv1.AttemptFailed, nfv1.ReasonInternalError, "nothing was changed: "+err.Error())
	}
	return false, ctx.Err()
}

// activated judges the end of an activation. It answers true if the attempt is over.
func (m *Machine) activated(ctx context.Context, record attempt.Activation, err error) (bool, error) {
	if ctx.Err() != nil {
		return true, ctx.Err() // the agent is being stopped; its next start goes on
	}
	if record.Note != "" {
		m.Log.Warn("The activation had a problem besides", "problem", record.Note)
	}
	if reason, message := m.activationProblem(record, err); reason != "" {
		return true, m.rollBack(ctx, reason, message)
	}
	path, specialisation, err := m.Activator.Running()
	if now := (attempt.System{Path: path, Specialisation: specialisation}); err != nil || now != m.plan.Target {
		return true, m.rollBack(ctx, nfv1.ReasonActivationFailed, fmt.Sprintf("switch-to-configuration ended well, but %q runs", now))
	}
	return false, nil
}

// recordBaseline journals what the host is like before it is changed.
func (m *Machine) recordBaseline(ctx context.Context) error {
	running, specialisation, err := m.Activator.Running()
	if err != nil {
		return err
	}
	profile, err := m.Profile.State(ctx)
	if err != nil {
		return err
	}
	if running != "" {
		if err := m.Source.Keep(ctx, running); err != nil {
			// What runs is kept by NixOS itself; this is the second net.
			m.Log.Warn("What runs now could not be kept from garbage collection", "storePath", running, "error", err)
		}
	}
	before, attempts := *m.journal.Open, m.journal.Attempts
	m.journal.step(nfv1.HostPhaseActivating, m.Clock.Now())
	o := m.journal.Open
	o.Previous, o.PreviousSpecialisation, o.PreviousProfile = running, specialisation, profile
	o.BootID, o.Reachable = m.BootID, m.Reporter.Reachable()
	err = m.number()
	if err == nil {
		err = m.save()
	}
	if err != nil {
		*m.journal.Open, m.journal.Attempts = before, attempts
	}
	return err
}

// noteLog says that the output of a run was not kept.
func (m *Machine) noteLog(r activation.Result) {
	if r.LogErr != nil {
		m.Log.Warn("The output of switch-to-configuration was not kept whole", "error", r.LogErr)
	}
}

// activationProblem says why an activation is undone; empty if it is not. Units that
// failed are left to the health checks where the Host's policy says so.
func (m *Machine) activationProblem(a attempt.Activation, err error) (reason, message string) {
	if err == nil && activation.Verdict(a) == activation.VerdictUnitsFailed && m.unitsMayFail() {
		m.Log.Warn("Units failed in the activation; the health checks decide", "output", a.Output)
		return "", ""
	}
	return recordProblem(a, err)
}

func (m *Machine) unitsMayFail() bool {
	return m.plan != nil && m.plan.Baseline.UnitsChecked || m.host != nil && m.host.Spec.Activation.FailedUnits == nfv1.FailedUnitsIgnore
}

// recordProblem says why a run of switch-to-configuration counts as failed. An unchanged
// /run/current-system proves nothing, since it is linked last.
func recordProblem(a attempt.Activation, err error) (reason, message string) {
	switch {
	case err != nil:
		return nfv1.ReasonActivationFailed, "switch-to-configuration could not be run: " + err.Error()
	case a.Error != "":
		return nfv1.ReasonActivationFailed, "switch-to-configuration could not be run: " + a.Error
	case a.TimedOut:
		return nfv1.ReasonActivationTimeout, "switch-to-configuration did not end in time and was stopped; " + lastWords(a.Output)
	case a.ExitCode != 0:
		meaning := ""
		if known := activation.ExplainExit(a.ExitCode); known != "" {
			meaning = " (" + known + ")"
		}
		return nfv1.ReasonActivationFailed, fmt.Sprintf("switch-to-configuration exited with %d%s; %s", a.ExitCode, meaning, lastWords(a.Output))
	default:
		return "", ""
	}
}

// verify waits until every health check has passed, or goes back.
func (m *Machine) verify(ctx context.Context, target nix.StorePath) (bool, error) {
	if err := m.next(nfv1.HostPhaseVerifying); err != nil {
		return true, m.rollBack(ctx, nfv1.ReasonInternalError, err.Error())
	}
	p, _, err := m.openPlan()
	if err != nil {
		return true, m.rollBack(ctx, nfv1.ReasonInternalError, err.Error())
	}
	checks, err := m.attemptChecks(p, attempt.System{Path: target, Specialisation: p.Target.Specialisation})
	if err != nil {
		return true, m.rollBack(ctx, nfv1.ReasonHealthCheckFailed, "the system's health checks cannot be read: "+err.Error())
	}
	m.record(m.Prober.UntilHealthy(ctx, checks))
	if ctx.Err() != nil {
		return true, ctx.Err()
	}
	if !m.healthy() {
		return true, m.rollBack(ctx, nfv1.ReasonHealthCheckFailed, m.unhealthyMessage())
	}
	return false, nil
}

// courtesy is how long a report is tried from a host that could not report before
// either.
const courtesy = 10 * time.Second

// confirm makes the new system report over a connection of its own. If the control
// plane could not be reached before the activation either, its absence says nothing
// about the system.
func (m *Machine) confirm(ctx context.Context) (bool, error) {
	if err := m.next(nfv1.HostPhaseConfirming); err != nil {
		return true, m.rollBack(ctx, nfv1.ReasonInternalError, err.Error())
	}
	timeout := courtesy
	if m.journal.Open.Reachable {
		timeout = m.confirmTimeout()
	}
	cctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := m.fresh(cctx); err != nil {
		if ctx.Err() != nil {
			return true, ctx.Err()
		}
		return true, m.rollBack(ctx, nfv1.ReasonConfirmTimeout, err.Error())
	}
	status := m.status()
	err := m.Reporter.Confirm(cctx, status)
	switch {
	case ctx.Err() != nil:
		return true, ctx.Err()
	case err != nil && m.journal.Open.Reachable:
		return true, m.rollBack(ctx, nfv1.ReasonConfirmTimeout, fmt.Sprintf("the new system could not report within %s: %v", timeout, err))
	case err == nil:
		m.reported = status
	}
	return false, nil
}

// staleLook is how often a process looks whether it is the new system's agent. If it is
// not it waits for its end: the helper restarts it.
const staleLook = 2 * time.Second

// fresh waits until this process is the agent that the new system has: what an old one
// can report says nothing about the new one's program and configuration.
func (m *Machine) fresh(ctx context.Context) error {
	p, _, err := m.openPlan()
	if err != nil {
		return err
	}
	for {
		why, err := m.Activator.Stale(ctx, p)
		if err == nil && why == "" {
			return m.unfit // this is the agent that the new system would have
		}
		if err != nil {
			why = err.Error()
		}
		m.Log.Warn("This process is not the agent of the new system", "reason", why)
		if !m.pause(ctx, staleLook) {
			return fmt.Errorf("the new system's agent did not come: %s", why)
		}
	}
}

func (m *Machine) pause(ctx context.Context, d time.Duration) bool {
	t := m.Clock.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C():
		return true
	}
}

// commit makes the system the one that the machine boots into, once that is decided. From
// then on an interruption leads forward.
func (m *Machine) commit(ctx context.Context, target nix.StorePath) error {
	if err := m.enterCommit(); err != nil {
		return m.rollBack(ctx, nfv1.ReasonInternalError, err.Error())
	}
	p, d, err := m.openPlan()
	if err != nil {
		return m.rollBack(ctx, nfv1.ReasonInternalError, err.Error())
	}
	switch decision, err := d.Decide(attempt.Commit); {
	case err != nil:
		return m.rollBack(ctx, nfv1.ReasonInternalError, err.Error())
	case decision != attempt.Commit:
		return m.rollBack(ctx, "", "")
	}
	if err := m.Activator.Settle(ctx, p); err != nil {
		m.Log.Warn("A timer that fires later finds the attempt committed", "error", err)
	}
	if message := m.install(ctx, d, target); message != "" {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return m.rollBack(ctx, nfv1.ReasonCommitFailed, message)
	}
	m.noteUnits(ctx, &p.Baseline)
	message := "the system runs and is committed"
	if label := m.Source.Label(target); label != "" {
		message = fmt.Sprintf("system %s runs and is committed", label)
	}
	return m.finish(ctx, nfv1.AttemptSucceeded, nfv1.ReasonCompleted, message)
}

// lockPatience is how long another change of the system may take.
const lockPatience = time.Minute

// install sets the profile and the boot default. It answers what went wrong.
func (m *Machine) install(ctx context.Context, d attempt.Dir, target nix.StorePath) string {
	lctx, cancel := context.WithTimeout(ctx, lockPatience)
	defer cancel()
	release, err := attempt.Lock(lctx, m.Base.StateDir)
	if err != nil {
		return err.Error()
	}
	defer release()
	if err := d.TouchProfile(); err != nil {
		return err.Error()
	}
	before := m.BootEntry(m.journal.Open.PreviousProfile.Path)
	if err := m.Profile.Set(ctx, target); err != nil {
		return err.Error()
	}
	result, err := m.Activator.Boot(ctx, target, m.journal.Open.Timeout, m.id())
	m.noteLog(result)
	if _, message := recordProblem(activation.Record(result, err), nil); message != "" {
		return message
	}
	return m.entryProblem(before, m.BootEntry(target))
}

// entryProblem says what is wrong with the boot default after an installation that ended
// well; empty if nothing is, or if it is not known. A configuration of a boot loader that
// did not name what the profile had before either may be a leftover that nobody reads.
func (m *Machine) entryProblem(before, after bootloader.Finding) string {
	switch {
	case after.Verdict == bootloader.Boots:
		return ""
	case after.Verdict == bootloader.BootsOther && before.Verdict == bootloader.Boots:
		return "switch-to-configuration boot ended well, but the machine would not boot the system: " + after.Message
	default:
		m.Log.Info("Whether the machine boots the new system could not be verified", "bootLoader", after.Loader, "reason", after.Message)
		return ""
	}
}

func (m *Machine) enterCommit() error {
	before := *m.journal.Open
	m.journal.Open.ProfileTouched = true
	if err := m.next(nfv1.HostPhaseCommitting); err != nil {
		*m.journal.Open = before
		return err
	}
	return nil
}

// next journals the step that is taken now. Steps are not reported on their own.
func (m *Machine) next(step nfv1.HostPhase) error {
	if m.journal.Open.Step != step {
		m.journal.step(step, m.Clock.Now())
	}
	return m.save()
}
