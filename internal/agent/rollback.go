// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package agent

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/nix"
)

// rollbackTimeout bounds the activation of what ran before.
const rollbackTimeout = 300 * time.Second

// rollBack goes back to what ran before, with that system's own program, restores the
// profile if it was touched, and ends the attempt.
func (m *Machine) rollBack(ctx context.Context, reason, message string) error {
	o := m.journal.Open
	o.Again = false
	m.enterRollback(reason, message)
	if o.Previous == "" {
		return m.finish(ctx, nfv1.AttemptFailed, nfv1.ReasonRollbackFailed, message+"; nothing ran before, so there is nothing to go back to")
	}
	problem := m.goBack(ctx, o)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if problem != "" {
		return m.finish(ctx, nfv1.AttemptFailed, nfv1.ReasonRollbackFailed, message+"; going back failed: "+problem)
	}
	checks, err := m.checks(o.Previous)
	if err == nil {
		m.record(m.Prober.UntilHealthy(ctx, checks))
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !m.healthy() {
			message = shorten(message, 256) + "; after going back, " + m.unhealthyMessage()
		}
	}
	return m.finish(ctx, nfv1.AttemptRolledBack, reason, message)
}

// enterRollback journals why it is gone back. If even that is not possible it is gone
// back all the same: what is in the journal leads to the same end.
func (m *Machine) enterRollback(reason, message string) {
	o := m.journal.Open
	confirmed := o.Step == nfv1.HostPhaseCommitting
	o.Reason, o.Message = reason, shorten(message, 512)
	if o.Step != nfv1.HostPhaseRollingBack {
		m.journal.step(nfv1.HostPhaseRollingBack, m.Clock.Now())
	}
	if err := m.save(); err != nil {
		m.Log.Error("Roll back without a journal", "error", err)
	}
	m.Log.Warn("Rolling back", "reason", reason, "message", message, "previous", o.Previous)
	if !confirmed { // a report was spent on the confirmation; the next is the outcome
		m.report(true)
	}
}

// goBack makes what ran before the running system again. It answers what went wrong. It
// can be done any number of times.
func (m *Machine) goBack(ctx context.Context, o *OpenAttempt) string {
	if o.ProfileTouched {
		if err := m.Profile.Restore(ctx, o.PreviousProfile); err != nil {
			return "the profile: " + err.Error()
		}
	}
	// A reboot leads back by itself; in the same boot a running system that looks right
	// may be half changed.
	if running, _, err := m.Activator.Running(); err != nil || running != o.Previous || o.BootID == m.BootID {
		result, err := m.Activator.TestUnchecked(ctx, o.Previous, rollbackTimeout, m.id())
		m.noteLog(result)
		if _, message := activationProblem(result, err); message != "" {
			return message
		}
	}
	if running, _, err := m.Activator.Running(); err != nil || running != o.Previous {
		return fmt.Sprintf("%q runs", running)
	}
	if p := o.PreviousProfile.Path; o.ProfileTouched && p != "" {
		result, err := m.Activator.Boot(ctx, p, rollbackTimeout, m.rollbackID())
		if _, message := activationProblem(result, err); message != "" {
			return "the boot default: " + message
		}
	}
	return ""
}

// finish ends the attempt, tells the control plane and frees what is not needed.
func (m *Machine) finish(ctx context.Context, outcome nfv1.AttemptOutcome, reason, message string) error {
	m.fetch.Store(nil)
	m.retrying, m.problem = "", ""
	m.journal.end(outcome, reason, message, m.Clock.Now())
	if err := m.save(); err != nil {
		m.Log.Error("Keep the outcome", "error", err)
		m.problem = "the outcome could not be written to the journal: " + err.Error()
	}
	level, eventType := slog.LevelInfo, corev1.EventTypeNormal
	if outcome != nfv1.AttemptSucceeded {
		level, eventType = slog.LevelWarn, corev1.EventTypeWarning
	}
	m.Log.Log(ctx, level, "Attempt ended", "outcome", outcome, "reason", reason, "message", message)
	m.report(false)
	m.Reporter.Event(eventType, string(outcome), shorten(fmt.Sprintf("%s: %s: %s", m.journal.Last.StorePath, reason, message), 1000))
	m.forget(ctx)
	return nil
}

// forget lets the garbage collector take what is not needed any more.
func (m *Machine) forget(ctx context.Context) {
	running, _, err := m.Activator.Running()
	if err != nil {
		return
	}
	keep := []nix.StorePath{running, m.journal.Good}
	if m.host != nil && m.host.Spec.Desired != nil {
		d := m.host.Spec.Desired
		keep = append(keep, nix.StorePath(d.StorePath), nix.StorePath(d.PreviousStorePath))
	}
	if err := m.Source.Forget(ctx, keep...); err != nil {
		m.Log.Warn("Free systems that are not needed", "error", err)
	}
}
