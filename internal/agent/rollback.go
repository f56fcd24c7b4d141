// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package agent

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/activation"
	"github.com/nixfleet/nixfleet/internal/attempt"
	"github.com/nixfleet/nixfleet/internal/health"
	"github.com/nixfleet/nixfleet/internal/nix"
)

// rollbackTimeout bounds an activation of the profile's system without an attempt.
const rollbackTimeout = 300 * time.Second

// rollBack goes back to what ran before, with that system's own program, restores the
// profile if it was touched, and ends the attempt. Without a reason it is somebody else
// who has decided so, and left why.
func (m *Machine) rollBack(ctx context.Context, reason, message string) error {
	o := m.journal.Open
	o.Again = false
	foreign := reason == ""
	if foreign {
		reason, message = nfv1.ReasonInterrupted, "the dead man's switch of the attempt decided to go back"
	}
	m.enterRollback(reason, message)
	if o.Previous == "" {
		return m.finish(ctx, nfv1.AttemptFailed, nfv1.ReasonRollbackFailed, message+"; nothing ran before, so there is nothing to go back to")
	}
	record, err := m.goBack(ctx)
	if err != nil {
		return err
	}
	if foreign {
		if r, text := triggerReason(record.Trigger); r != "" {
			reason, message = r, text
		}
	}
	if record.Outcome != attempt.RolledBack {
		return m.finish(ctx, nfv1.AttemptFailed, nfv1.ReasonRollbackFailed, message+"; going back failed: "+strings.Join(record.Problems, "; "))
	}
	if checks, err := m.previousChecks(); err == nil {
		m.record(m.Prober.UntilHealthy(ctx, checks))
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !m.healthy() {
			message = shorten(message, 256) + "; after going back, " + m.unhealthyMessage()
		}
	}
	outcome := nfv1.AttemptRolledBack
	if reason == nfv1.ReasonInterruptedCommit {
		outcome = nfv1.AttemptFailed
	}
	return m.finish(ctx, outcome, reason, message)
}

// previousChecks are what the system that ran before is checked by after going back.
func (m *Machine) previousChecks() ([]health.Check, error) {
	p, _, err := m.openPlan()
	if err != nil {
		return nil, err
	}
	return m.attemptChecks(p, p.Previous)
}

// triggerReason says why somebody else has gone back.
func triggerReason(trigger string) (reason, message string) {
	switch trigger {
	case activation.TriggerActivationTimer:
		return nfv1.ReasonActivationTimeout, "the activation did not come to its end, and the dead man's switch went back"
	case activation.TriggerConfirmTimer:
		return nfv1.ReasonConfirmTimeout, "no agent of the new system confirmed it in time, and the dead man's switch went back"
	case activation.TriggerPerson:
		return nfv1.ReasonInterrupted, "somebody went back by hand"
	default:
		return "", ""
	}
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

// goBack makes what ran before the running system again. It can be done any number of
// times. An error means that it has to be tried again.
func (m *Machine) goBack(ctx context.Context) (attempt.RollbackRecord, error) {
	p, d, err := m.openPlan()
	if err != nil {
		return attempt.RollbackRecord{}, err
	}
	// A commit that could not be carried out is taken back, which the agent alone may do.
	decision, err := d.Decision()
	if err == nil && decision == attempt.Commit {
		err = d.Withdraw()
	}
	if err != nil {
		return attempt.RollbackRecord{}, err
	}
	record, err := m.Activator.Rollback(ctx, p)
	if ctx.Err() != nil {
		return record, ctx.Err()
	}
	if err != nil {
		return record, fmt.Errorf("go back to %s: %w", p.Previous, err)
	}
	return record, nil
}

// finish ends the attempt, tells the control plane and frees what is not needed.
func (m *Machine) finish(ctx context.Context, outcome nfv1.AttemptOutcome, reason, message string) error {
	m.fetch.Store(nil)
	m.retrying, m.problem = "", ""
	number, correction, path := m.journal.Open.Number, m.journal.Open.Correction, m.journal.Open.StorePath
	m.journal.end(outcome, reason, message, m.Clock.Now())
	err := m.save()
	if err != nil {
		m.Log.Error("Keep the outcome", "error", err)
		m.problem = "the outcome could not be written to the journal: " + err.Error()
	}
	level, eventType := slog.LevelInfo, corev1.EventTypeNormal
	if outcome != nfv1.AttemptSucceeded {
		level, eventType = slog.LevelWarn, corev1.EventTypeWarning
	}
	m.Metrics.ended(outcome)
	m.Log.Log(ctx, level, "Attempt ended", "outcome", outcome, "reason", reason, "message", message)
	m.report(false)
	m.Reporter.Event(eventType, eventReason(outcome, correction), shorten(fmt.Sprintf("%s: %s: %s", path, reason, message), 1000))
	if err == nil { // else the next start brings it to its end once more
		m.closeAttempt(ctx, number)
	}
	m.forget(ctx)
	return nil
}

// eventReason names the end of an attempt in events.
func eventReason(outcome nfv1.AttemptOutcome, correction bool) string {
	switch {
	case !correction:
		return string(outcome)
	case outcome == nfv1.AttemptSucceeded:
		return "DriftCorrected"
	default:
		return "DriftNotCorrected"
	}
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
