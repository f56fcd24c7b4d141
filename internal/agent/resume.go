// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/activation"
	"github.com/nixfleet/nixfleet/internal/attempt"
	"github.com/nixfleet/nixfleet/internal/nix"
)

// maxInterruptions is how often an attempt may be cut short by the end of its agent
// before the system is held responsible for it.
const maxInterruptions = 3

// recovery is what becomes of an attempt that an earlier process left open.
type recovery int

const (
	// recoverRetry carries it out from its beginning: nothing was changed.
	recoverRetry recovery = iota
	// recoverAgain goes back, and then carries it out from its beginning.
	recoverAgain
	// recoverJoin waits for the activation, which may live on without the agent.
	recoverJoin
	// recoverProve goes on with the health checks: the activation had ended well.
	recoverProve
	// recoverCommit finishes what was decided.
	recoverCommit
	// recoverUndo goes back for good.
	recoverUndo
)

// facts are what the machine and the attempt's directory say when an agent starts.
type facts struct {
	bootID    string
	running   nix.StorePath
	planned   bool
	decision  attempt.Decision
	withdrawn bool
}

// recoverFrom decides what becomes of an open attempt when the agent starts, and says
// why. No reason means that somebody else has decided to go back, and left why. An agent
// that was killed says nothing about the system that it activated, so the host is brought
// to a defined state and the order is carried out again, unless that happened too often.
// A reboot may be the system's doing: after one it is undone.
func recoverFrom(o *OpenAttempt, f facts) (what recovery, reason, message string) {
	there := f.running == nix.StorePath(o.StorePath)
	reason, message = nfv1.ReasonInterrupted, fmt.Sprintf("the agent was interrupted %d times, the last time in phase %s", o.Interruptions+1, o.Step)
	rebooted := o.BootID != "" && o.BootID != f.bootID
	if rebooted {
		reason, message = nfv1.ReasonHostRebooted, "the host rebooted in phase "+string(o.Step)
	}
	// For an agent without plans the step was the decision.
	committed := f.decision == attempt.Commit && !f.withdrawn || o.Number == 0 && o.Step == nfv1.HostPhaseCommitting
	switch {
	case o.Step == nfv1.HostPhaseFetching, o.Number > 0 && !f.planned:
		return recoverRetry, reason, message
	case o.Step == nfv1.HostPhaseRollingBack && o.Reason != "" && !o.Again:
		return recoverUndo, o.Reason, o.Message
	case committed && there:
		return recoverCommit, reason, message
	case committed && rebooted:
		return recoverUndo, nfv1.ReasonInterruptedCommit, "the new system was confirmed, and the host rebooted into what it ran before"
	case f.decision == attempt.Rollback && !o.Again && !rebooted:
		return recoverUndo, "", ""
	case rebooted, committed, o.Interruptions >= maxInterruptions-1:
		return recoverUndo, reason, message
	case o.Step == nfv1.HostPhaseActivating && f.decision == attempt.Undecided:
		return recoverJoin, reason, message
	case proving(o.Step) && there:
		return recoverProve, reason, message
	default:
		return recoverAgain, reason, message
	}
}

// proving: the activation had ended well, and nothing was decided.
func proving(step nfv1.HostPhase) bool {
	return step == nfv1.HostPhaseVerifying || step == nfv1.HostPhaseConfirming || step == nfv1.HostPhaseCommitting
}

// resume brings an attempt that an earlier process left open to a defined end. It needs
// no control plane. An error means that it has to be tried again.
func (m *Machine) resume(ctx context.Context) error {
	m.sweep(ctx)
	o := m.journal.Open
	if o == nil {
		return nil
	}
	f, err := m.facts()
	if err != nil {
		return err
	}
	what, reason, message := recoverFrom(o, f)
	m.Log.Warn("An attempt was left open", "revision", o.Revision, "attempt", o.Number, "storePath", o.StorePath, "step", o.Step, "reason", reason)
	switch what {
	case recoverRetry:
		return m.retry()
	case recoverAgain:
		return m.startAgain(ctx, reason, message)
	case recoverJoin:
		return m.join(ctx, reason, message)
	case recoverProve:
		o.Interruptions++
		return m.prove(ctx, f.running)
	case recoverCommit:
		if err := m.Activator.Abandon(ctx, activation.KindBoot, m.id()); err != nil {
			return err
		}
		return m.commit(ctx, f.running)
	default:
		return m.rollBack(ctx, reason, message)
	}
}

func (m *Machine) facts() (facts, error) {
	f := facts{bootID: m.BootID}
	var err error
	// What leads to no system is surely not the target.
	f.running, _, _ = m.Activator.Running()
	o := m.journal.Open
	if o.Number == 0 {
		return f, nil
	}
	d := attempt.At(m.Base.StateDir, o.Number)
	if f.planned, err = m.planned(); err != nil || !f.planned {
		return f, err
	}
	if f.decision, err = d.Decision(); err != nil {
		return f, err
	}
	// For a commit this says that it was withdrawn.
	f.withdrawn, err = d.MayRollBack()
	return f, err
}

// retry leaves the attempt where it began: its order still stands.
func (m *Machine) retry() error {
	o := m.journal.Open
	if o.Step == nfv1.HostPhaseFetching {
		return nil
	}
	m.reopen()
	return nil
}

// reopen leaves the attempt as it was before anything was done, to be carried out again.
func (m *Machine) reopen() {
	o := m.journal.Open
	m.journal.step(nfv1.HostPhaseFetching, m.Clock.Now())
	o.Again, o.ProfileTouched, o.Reason, o.Message, o.BootID, o.Number, o.Nonce = false, false, "", "", "", 0, ""
	m.plan = nil
	if err := m.save(); err != nil {
		m.Log.Error("Keep that the attempt begins again", "error", err)
	}
}

// join goes on with an activation that an earlier process has begun. That the activation
// itself has ended that process, to put another agent in its place, is how it should be.
func (m *Machine) join(ctx context.Context, reason, message string) error {
	p, d, err := m.openPlan()
	if err != nil {
		return err
	}
	record, joined, err := m.Activator.Join(ctx, p)
	if ctx.Err() != nil || err != nil {
		return errors.Join(ctx.Err(), err)
	}
	if joined {
		if done, err := m.activated(ctx, record, nil); done || err != nil {
			return err
		}
		return m.prove(ctx, p.Target.Path)
	}
	decision, err := d.Decision()
	switch {
	case err != nil:
		return err
	case decision == attempt.Rollback:
		return m.rollBack(ctx, "", "")
	default:
		return m.startAgain(ctx, reason, message)
	}
}

// startAgain goes back and leaves the attempt where it began, for its order to be
// carried out again.
func (m *Machine) startAgain(ctx context.Context, reason, message string) error {
	o := m.journal.Open
	if !o.Again {
		o.Interruptions++
	}
	o.Again = true
	m.enterRollback(reason, message)
	if o.Previous != "" {
		record, err := m.goBack(ctx)
		if err != nil {
			return err
		}
		if record.Outcome != attempt.RolledBack {
			return m.finish(ctx, nfv1.AttemptFailed, nfv1.ReasonRollbackFailed, message+"; going back failed: "+strings.Join(record.Problems, "; "))
		}
		m.closeAttempt(ctx, o.Number)
	} else if err := m.leaveUndecided(ctx); err != nil {
		return err
	}
	m.reopen()
	return nil
}

// leaveUndecided ends what runs of the attempt on a host that has nothing to go back to.
func (m *Machine) leaveUndecided(ctx context.Context) error {
	p, d, err := m.openPlan()
	if err != nil {
		return err
	}
	if _, err := d.Decide(attempt.Rollback); err != nil {
		return err
	}
	m.closeAttempt(ctx, p.Number)
	return m.Activator.Abandon(ctx, activation.KindTest, p.ID())
}

// dropOpen forgets an attempt that waited to begin again and is not asked for any more.
func (m *Machine) dropOpen() {
	if m.journal.Open == nil || m.journal.Open.Step != nfv1.HostPhaseFetching {
		return
	}
	if m.journal.Open.Correction {
		m.abandonCorrection()
	}
	m.journal.Open, m.retrying = nil, ""
	m.fetch.Store(nil)
	if err := m.save(); err != nil {
		m.Log.Error("Keep that nothing is asked any more", "error", err)
	}
	m.report(false)
}

// adopt takes over what the control plane still knows of this host's reports, if the
// journal knows nothing: an order that failed before is not tried again because a disk
// was lost.
func (m *Machine) adopt(h *nfv1.Host) {
	if m.journal.HostUID != "" || h.Status.ObservedRevision == 0 {
		return
	}
	m.journal.HostUID, m.journal.ObservedRevision = h.UID, h.Status.ObservedRevision
	m.journal.History = h.Status.History
	if a := h.Status.Attempt; a != nil && a.Outcome != "" {
		m.journal.Last = a.DeepCopy()
	}
	for _, a := range h.Status.History {
		if a.Outcome == nfv1.AttemptSucceeded {
			m.journal.Good = nix.StorePath(a.StorePath)
			break
		}
	}
	m.journal.Host = remembered(h)
	if err := m.save(); err != nil {
		m.Log.Error("Keep what the control plane knows", "error", err)
	}
}

// distrust brings a host whose journal was lost to a defined state. An attempt that is
// not over is undone, unless it was committed. What the profile names was committed once;
// if something else runs, nobody knows whether it was healthy.
func (m *Machine) distrust(ctx context.Context, lost error) {
	m.problem = lost.Error()
	if err := m.undoLast(ctx); err != nil {
		m.problem += "; the last attempt could not be undone: " + err.Error()
		m.Log.Error("Undo an attempt whose journal was lost", "error", err)
	}
	running, specialisation, err := m.Activator.Running()
	profile, _, perr := m.Profile.Current(ctx)
	if err != nil || perr != nil || running == "" || running == profile {
		return
	}
	m.Log.Warn("Going back to the system of the profile, since the journal was lost", "running", running, "profile", profile)
	to := attempt.System{Path: profile}
	if specialisation != "" && m.Source.Has(profile, specialisation) {
		to.Specialisation = specialisation
	}
	result, err := m.Activator.TestUnchecked(ctx, to, rollbackTimeout, "lost-journal")
	problem := fmt.Sprintf("; %s ran and the profile names %s, so the host went back to that", running, profile)
	if _, message := recordProblem(activation.Record(result, err), nil); message != "" {
		problem = fmt.Sprintf("; %s runs, the profile names %s, and going back to that failed: %s", running, profile, message)
	}
	m.problem += problem
	m.Log.Error(m.problem)
}

// undoLast goes back from the newest attempt on disk if it is not over.
func (m *Machine) undoLast(ctx context.Context) error {
	numbers, err := attempt.Numbers(m.Base.StateDir)
	if err != nil || len(numbers) == 0 {
		return err
	}
	m.journal.Attempts = numbers[len(numbers)-1]
	d := attempt.At(m.Base.StateDir, m.journal.Attempts)
	p, err := d.Plan()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	closed, cerr := d.Closed()
	if err := errors.Join(err, cerr); err != nil || closed {
		return err
	}
	if decision, err := d.Decide(attempt.Rollback); err != nil || decision == attempt.Commit {
		return errors.Join(err, m.Activator.Settle(ctx, p))
	}
	record, err := m.Activator.Rollback(ctx, p)
	if err != nil {
		return err
	}
	m.Log.Warn("Undid an attempt whose journal was lost", "attempt", p.Number, "outcome", record.Outcome, "problems", record.Problems)
	m.closeAttempt(ctx, p.Number)
	return nil
}
