// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/clock"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/activation"
	"github.com/nixfleet/nixfleet/internal/health"
	"github.com/nixfleet/nixfleet/internal/nix"
)

// Machine carries out what a Host asks, one attempt at a time.
type Machine struct {
	// Activator, Profile, Source, Prober and Reporter are the machine's hands.
	Activator Activator
	Profile   nix.Profile
	Source    Source
	Prober    Prober
	Reporter  Reporter

	// Store keeps the journal.
	Store interface{ Save(Journal) error }

	// Clock tells the time.
	Clock clock.WithTicker

	// BootID tells boots of the machine apart.
	BootID string

	// Info describes the machine in its reports.
	Info nfv1.NodeInfo

	// Log takes what an administrator of the host should find.
	Log *slog.Logger

	journal Journal
	host    *nfv1.Host
	fetch   atomic.Pointer[nfv1.FetchProgress]
	results []nfv1.HealthCheckResult
	problem string

	// fetching says that the open attempt can still be given up for a newer order.
	fetching atomic.Bool
}

// save writes the journal before a step is taken.
func (m *Machine) save() error { return m.Store.Save(m.journal) }

// begin opens an attempt for the Host's current assignment. Nothing has been done when
// the journal cannot be written.
func (m *Machine) begin(h *nfv1.Host) error {
	d, now := h.Spec.Desired, m.Clock.Now()
	before := m.journal
	if m.journal.HostUID != h.UID {
		m.journal = Journal{HostUID: h.UID, Good: m.journal.Good}
	}
	m.journal.ObservedRevision = d.Revision
	m.journal.Open = nil
	if d.Intent != nfv1.IntentNone {
		m.journal.Open = &OpenAttempt{
			HostAttempt: nfv1.HostAttempt{Revision: d.Revision, StorePath: d.StorePath, StartedAt: stamp(now)},
			Step:        nfv1.HostPhaseFetching, Since: now,
			Timeout: time.Duration(h.Spec.Activation.ActivationTimeoutSeconds) * time.Second,
		}
		if d.Rollout != nil {
			m.journal.Open.RolloutUID = d.Rollout.UID
		}
	}
	if err := m.save(); err != nil {
		m.journal = before
		return err
	}
	return nil
}

// move carries out the open attempt. A nil error means that it ended, one way or the
// other; an error means that it stands where the journal says.
func (m *Machine) move(ctx context.Context) error {
	d, open := m.host.Spec.Desired, m.journal.Open
	target := nix.StorePath(open.StorePath)
	m.Log.Info("Moving to a system", "revision", open.Revision, "storePath", target, "intent", d.Intent)
	m.report(true)
	if done, err := m.alreadyThere(ctx, target); done || err != nil {
		return err
	}
	m.fetching.Store(true)
	err := m.Source.Fetch(ctx, target, d.Caches, m.progress)
	m.fetching.Store(false)
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return m.fetchFailed(ctx, err)
	}
	m.fetch.Store(nil)
	if done, err := m.activate(ctx, target); done || err != nil {
		return err
	}
	if done, err := m.verify(ctx, target); done || err != nil {
		return err
	}
	if done, err := m.confirm(ctx); done || err != nil {
		return err
	}
	return m.commit(ctx, target)
}

func (m *Machine) progress(p nix.FetchProgress) {
	m.fetch.Store(&nfv1.FetchProgress{PathsDone: p.PathsDone, PathsTotal: p.PathsTotal, BytesDone: p.BytesDone, BytesTotal: p.BytesTotal})
}

// alreadyThere ends the attempt if the system runs, is committed and is healthy.
func (m *Machine) alreadyThere(ctx context.Context, target nix.StorePath) (bool, error) {
	running, _, err := m.Activator.Running()
	if err != nil || running != target {
		return false, err
	}
	if profile, _, err := m.Profile.Current(ctx); err != nil || profile != target {
		return false, nil //nolint:nilerr // a profile that cannot be read is not this system; the commit sets it
	}
	checks, err := m.checks(target)
	if err != nil {
		return false, nil //nolint:nilerr // the ordinary way says what is wrong with the checks
	}
	if m.record(m.Prober.Once(ctx, checks)); !m.healthy() {
		return false, nil
	}
	return true, m.finish(ctx, nfv1.AttemptSucceeded, nfv1.ReasonAlreadyRunning, "the system was running already")
}

func (m *Machine) fetchFailed(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return err
	}
	var refusal *Refusal
	if errors.As(err, &refusal) {
		return m.finish(ctx, nfv1.AttemptRefused, refusal.Reason, refusal.Error())
	}
	return m.finish(ctx, nfv1.AttemptFailed, nfv1.ReasonFetchFailed, err.Error())
}

// activate records what there is to go back to and runs the system's own program. The
// profile is not touched: a host that loses power now comes back on the old system.
func (m *Machine) activate(ctx context.Context, target nix.StorePath) (bool, error) {
	running, _, err := m.Activator.Running()
	if err != nil {
		return true, m.finish(ctx, nfv1.AttemptFailed, nfv1.ReasonInternalError, err.Error())
	}
	profile, err := m.Profile.State(ctx)
	if err != nil {
		return true, m.finish(ctx, nfv1.AttemptFailed, nfv1.ReasonInternalError, err.Error())
	}
	before := *m.journal.Open
	m.journal.step(nfv1.HostPhaseActivating, m.Clock.Now())
	m.journal.Open.Previous, m.journal.Open.PreviousProfile, m.journal.Open.BootID = running, profile, m.BootID
	if err := m.save(); err != nil {
		*m.journal.Open = before
		return true, m.finish(ctx, nfv1.AttemptFailed, nfv1.ReasonInternalError, "nothing was changed: "+err.Error())
	}
	m.report(true)
	if running == target {
		return false, nil
	}
	result, err := m.Activator.Test(ctx, target, m.journal.Open.Timeout, m.id())
	switch reason, message := activationProblem(result, err); {
	case ctx.Err() != nil:
		return true, ctx.Err() // the agent is being stopped: its next start goes back
	case reason != "":
		return true, m.rollBack(ctx, reason, message)
	}
	if now, _, err := m.Activator.Running(); err != nil || now != target {
		return true, m.rollBack(ctx, nfv1.ReasonActivationFailed, fmt.Sprintf("switch-to-configuration ended well, but %q runs", now))
	}
	return false, nil
}

func (m *Machine) id() string { return fmt.Sprintf("%d", m.journal.Open.Revision) }

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

// confirm makes the new system report over a connection of its own. If the control
// plane could not be reached before either, its absence says nothing about the system.
func (m *Machine) confirm(ctx context.Context) (bool, error) {
	before := m.Reporter.Reachable()
	if err := m.next(nfv1.HostPhaseConfirming); err != nil {
		return true, m.rollBack(ctx, nfv1.ReasonInternalError, err.Error())
	}
	timeout := time.Duration(m.host.Spec.Activation.ConfirmTimeoutSeconds) * time.Second
	if !before {
		timeout = 10 * time.Second
	}
	cctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	err := m.Reporter.Confirm(cctx, m.status())
	switch {
	case ctx.Err() != nil:
		return true, ctx.Err()
	case err != nil && before:
		return true, m.rollBack(ctx, nfv1.ReasonConfirmTimeout, fmt.Sprintf("the new system could not report within %s: %v", timeout, err))
	default:
		return false, nil
	}
}

// commit makes the system the one that the machine boots into.
func (m *Machine) commit(ctx context.Context, target nix.StorePath) error {
	if err := m.next(nfv1.HostPhaseCommitting); err != nil {
		return m.rollBack(ctx, nfv1.ReasonInternalError, err.Error())
	}
	if err := m.Profile.Set(ctx, target); err != nil {
		return m.commitFailed(ctx, err.Error())
	}
	result, err := m.Activator.Boot(ctx, target, m.journal.Open.Timeout, m.id()+"-boot")
	if _, message := activationProblem(result, err); message != "" {
		return m.commitFailed(ctx, message)
	}
	message := "runs and is committed"
	if m.host != nil && m.host.Spec.Desired != nil {
		message = fmt.Sprintf("runs %s and is committed", m.Source.Label(target))
	}
	return m.finish(ctx, nfv1.AttemptSucceeded, nfv1.ReasonCompleted, message)
}

func (m *Machine) commitFailed(ctx context.Context, message string) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return m.rollBack(ctx, nfv1.ReasonCommitFailed, message)
}

func (m *Machine) next(step nfv1.HostPhase) error {
	m.journal.step(step, m.Clock.Now())
	if err := m.save(); err != nil {
		return err
	}
	m.report(true)
	return nil
}

// rollBack goes back to what ran before, with that system's own program, restores the
// profile, and ends the attempt. Why it goes back is journalled first; if even that is
// not possible it goes back all the same.
func (m *Machine) rollBack(ctx context.Context, reason, message string) error {
	o := m.journal.Open
	o.Reason, o.Message = reason, shorten(message, 512)
	if o.Step != nfv1.HostPhaseRollingBack {
		m.journal.step(nfv1.HostPhaseRollingBack, m.Clock.Now())
	}
	if err := m.save(); err != nil {
		m.Log.Error("Roll back without a journal", "error", err)
	}
	m.Log.Warn("Rolling back", "reason", reason, "message", message, "previous", o.Previous)
	m.report(true)
	if o.Previous == "" {
		return m.finish(ctx, nfv1.AttemptFailed, nfv1.ReasonRollbackFailed, message+"; nothing ran before, so there is nothing to go back to")
	}
	if problem := m.goBack(ctx, o); problem != "" {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return m.finish(ctx, nfv1.AttemptFailed, nfv1.ReasonRollbackFailed, message+"; going back failed: "+problem)
	}
	if checks, err := m.checks(o.Previous); err == nil {
		m.record(m.Prober.UntilHealthy(ctx, checks))
	}
	return m.finish(ctx, nfv1.AttemptRolledBack, reason, message)
}

func (m *Machine) goBack(ctx context.Context, o *OpenAttempt) string {
	const rollbackTimeout = 300 * time.Second
	if err := m.Profile.Restore(ctx, o.PreviousProfile); err != nil {
		return "the profile: " + err.Error()
	}
	result, err := m.Activator.TestUnchecked(ctx, o.Previous, rollbackTimeout, m.id()+"-rollback")
	if _, message := activationProblem(result, err); message != "" {
		return message
	}
	if running, _, err := m.Activator.Running(); err != nil || running != o.Previous {
		return fmt.Sprintf("%q runs", running)
	}
	if p := o.PreviousProfile.Path; p != "" && o.committing() {
		result, err = m.Activator.Boot(ctx, p, rollbackTimeout, m.id()+"-rollback-boot")
		if _, message := activationProblem(result, err); message != "" {
			return "the boot default: " + message
		}
	}
	return ""
}

// committing reports whether the attempt got as far as the profile and the boot default.
func (o *OpenAttempt) committing() bool {
	return slices.ContainsFunc(o.Phases, func(p nfv1.PhaseDuration) bool { return p.Phase == nfv1.HostPhaseCommitting })
}

// finish ends the attempt, tells the control plane and frees what is not needed.
func (m *Machine) finish(ctx context.Context, outcome nfv1.AttemptOutcome, reason, message string) error {
	m.fetch.Store(nil)
	m.journal.end(outcome, reason, message, m.Clock.Now())
	if err := m.save(); err != nil {
		m.Log.Error("Keep the outcome", "error", err)
		m.problem = err.Error()
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

// resume brings an attempt that an earlier process left open to a defined end. Before
// the switch began nothing was changed and the order is carried out again; until the
// decision to commit it is undone; after it, finished.
func (m *Machine) resume(ctx context.Context) error {
	o := m.journal.Open
	if o == nil {
		return nil
	}
	reason, message := nfv1.ReasonInterrupted, "the agent was interrupted in phase "+string(o.Step)
	if o.BootID != "" && o.BootID != m.BootID {
		reason, message = nfv1.ReasonHostRebooted, "the host rebooted in phase "+string(o.Step)
	}
	switch o.Step {
	case nfv1.HostPhaseFetching:
		m.journal.Open = nil
		return nil
	case nfv1.HostPhaseRollingBack:
		return m.rollBack(ctx, orElse(o.Reason, reason), orElse(o.Message, message))
	case nfv1.HostPhaseCommitting:
		if running, _, err := m.Activator.Running(); err == nil && running == nix.StorePath(o.StorePath) {
			return m.commit(ctx, running)
		}
		return m.rollBack(ctx, reason, message)
	default:
		return m.rollBack(ctx, reason, message)
	}
}

func orElse(s, otherwise string) string {
	if s != "" {
		return s
	}
	return otherwise
}

// checks are those of the system and those of the Host.
func (m *Machine) checks(path nix.StorePath) ([]health.Check, error) {
	checks, err := m.Source.Checks(path)
	if err != nil {
		return nil, err
	}
	if m.host != nil {
		checks = append(checks, health.FromSpec(m.host.Spec.HealthChecks)...)
	}
	return checks, nil
}
