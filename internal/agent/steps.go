// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package agent

import (
	"context"
	"fmt"
	"time"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/activation"
	"github.com/nixfleet/nixfleet/internal/nix"
)

// activate records what there is to go back to and runs the system's own program. The
// profile is not touched: a host that loses power now comes back on the old system.
func (m *Machine) activate(ctx context.Context, target nix.StorePath) (bool, error) {
	if err := m.recordBaseline(ctx); err != nil {
		return true, m.finish(ctx, nfv1.AttemptFailed, nfv1.ReasonInternalError, "nothing was changed: "+err.Error())
	}
	// What somebody activated by hand needs no second activation, only the commit.
	if m.runsHealthy(ctx, target) {
		return false, nil
	}
	if ctx.Err() != nil {
		return true, ctx.Err()
	}
	result, err := m.Activator.Test(ctx, target, m.journal.Open.Timeout, m.id())
	m.noteLog(result)
	switch reason, message := activationProblem(result, err); {
	case ctx.Err() != nil:
		return true, ctx.Err() // the agent is being stopped; its next start goes on
	case reason != "":
		return true, m.rollBack(ctx, reason, message)
	}
	if now, _, err := m.Activator.Running(); err != nil || now != target {
		return true, m.rollBack(ctx, nfv1.ReasonActivationFailed, fmt.Sprintf("switch-to-configuration ended well, but %q runs", now))
	}
	return false, nil
}

// recordBaseline journals what the host is like before it is changed.
func (m *Machine) recordBaseline(ctx context.Context) error {
	running, _, err := m.Activator.Running()
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
	before := *m.journal.Open
	m.journal.step(nfv1.HostPhaseActivating, m.Clock.Now())
	o := m.journal.Open
	o.Previous, o.PreviousProfile, o.BootID, o.Reachable = running, profile, m.BootID, m.Reporter.Reachable()
	if err := m.save(); err != nil {
		*m.journal.Open = before
		return err
	}
	return nil
}

// noteLog says that the output of a run was not kept.
func (m *Machine) noteLog(r activation.Result) {
	if r.LogErr != nil {
		m.Log.Warn("The output of switch-to-configuration was not kept whole", "error", r.LogErr)
	}
}

// activationProblem says why an activation counts as failed. Any exit code but 0 does:
// an unchanged /run/current-system proves nothing, since it is linked last.
func activationProblem(r activation.Result, err error) (reason, message string) {
	switch {
	case err != nil:
		return nfv1.ReasonActivationFailed, "switch-to-configuration could not be run: " + err.Error()
	case r.TimedOut:
		return nfv1.ReasonActivationTimeout, "switch-to-configuration did not end in time and was stopped; " + lastWords(r.Output)
	case r.ExitCode != 0:
		return nfv1.ReasonActivationFailed, fmt.Sprintf("switch-to-configuration exited with %d; %s", r.ExitCode, lastWords(r.Output))
	default:
		return "", ""
	}
}

// verify waits until every health check has passed, or goes back.
func (m *Machine) verify(ctx context.Context, target nix.StorePath) (bool, error) {
	if err := m.next(nfv1.HostPhaseVerifying); err != nil {
		return true, m.rollBack(ctx, nfv1.ReasonInternalError, err.Error())
	}
	checks, err := m.checks(target)
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
		timeout = seconds(m.host.Spec.Activation.ConfirmTimeoutSeconds, defaultConfirmTimeout)
	}
	cctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
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

// commit makes the system the one that the machine boots into. That this step is in the
// journal is the decision: from here on an interruption leads forward.
func (m *Machine) commit(ctx context.Context, target nix.StorePath) error {
	if err := m.enterCommit(); err != nil {
		return m.rollBack(ctx, nfv1.ReasonInternalError, err.Error())
	}
	if err := m.Profile.Set(ctx, target); err != nil {
		return m.commitFailed(ctx, err.Error())
	}
	result, err := m.Activator.Boot(ctx, target, m.journal.Open.Timeout, m.id())
	m.noteLog(result)
	if _, message := activationProblem(result, err); message != "" {
		return m.commitFailed(ctx, message)
	}
	message := "the system runs and is committed"
	if label := m.Source.Label(target); label != "" {
		message = fmt.Sprintf("system %s runs and is committed", label)
	}
	return m.finish(ctx, nfv1.AttemptSucceeded, nfv1.ReasonCompleted, message)
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

func (m *Machine) commitFailed(ctx context.Context, message string) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return m.rollBack(ctx, nfv1.ReasonCommitFailed, message)
}

// next journals the step that is taken now. Steps are not reported on their own.
func (m *Machine) next(step nfv1.HostPhase) error {
	if m.journal.Open.Step != step {
		m.journal.step(step, m.Clock.Now())
	}
	return m.save()
}
