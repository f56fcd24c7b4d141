// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package agent

import (
	"context"
	"errors"
	"fmt"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/activation"
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
	// recoverProve goes on with the health checks: the activation had ended well.
	recoverProve
	// recoverCommit finishes what was decided.
	recoverCommit
	// recoverUndo goes back for good.
	recoverUndo
)

// recoverFrom decides what becomes of an open attempt when the agent starts, and says
// why. An agent that was killed says nothing about the system that it activated, so the
// host is brought to a defined state and the order is carried out again, unless that
// happened too often. A reboot may be the system's doing: after one it is undone.
func recoverFrom(o *OpenAttempt, bootID string, running nix.StorePath) (what recovery, reason, message string) {
	there := running == nix.StorePath(o.StorePath)
	reason, message = nfv1.ReasonInterrupted, fmt.Sprintf("the agent was interrupted %d times, the last time in phase %s", o.Interruptions+1, o.Step)
	rebooted := o.BootID != "" && o.BootID != bootID
	if rebooted {
		reason, message = nfv1.ReasonHostRebooted, "the host rebooted in phase "+string(o.Step)
	}
	switch {
	case o.Step == nfv1.HostPhaseFetching:
		return recoverRetry, reason, message
	case o.Step == nfv1.HostPhaseCommitting && there:
		return recoverCommit, reason, message
	case o.Step == nfv1.HostPhaseRollingBack && o.Reason != "" && !o.Again:
		return recoverUndo, o.Reason, o.Message
	case rebooted, o.Step == nfv1.HostPhaseCommitting, o.Interruptions >= maxInterruptions-1:
		return recoverUndo, reason, message
	case o.Step == nfv1.HostPhaseVerifying && there, o.Step == nfv1.HostPhaseConfirming && there:
		return recoverProve, reason, message
	default:
		return recoverAgain, reason, message
	}
}

// resume brings an attempt that an earlier process left open to a defined end. It needs
// no control plane. An error means that it has to be tried again.
func (m *Machine) resume(ctx context.Context) error {
	o := m.journal.Open
	if o == nil {
		return nil
	}
	if err := m.abandon(ctx); err != nil {
		return err
	}
	running, _, err := m.Activator.Running()
	if err != nil {
		running = "" // something is there that is no system: surely not the target
	}
	what, reason, message := recoverFrom(o, m.BootID, running)
	m.Log.Warn("An attempt was left open", "revision", o.Revision, "storePath", o.StorePath, "step", o.Step, "reason", reason)
	switch what {
	case recoverRetry:
		return nil // its order still stands
	case recoverAgain:
		return m.startAgain(ctx, reason, message)
	case recoverProve:
		o.Interruptions++
		return m.prove(ctx, running)
	case recoverCommit:
		return m.commit(ctx, running)
	default:
		return m.rollBack(ctx, reason, message)
	}
}

// abandon ends the run of switch-to-configuration that the killed agent had begun: it
// would go on beside the one that goes back, and have the last word.
func (m *Machine) abandon(ctx context.Context) error {
	switch m.journal.Open.Step {
	case nfv1.HostPhaseActivating:
		return m.Activator.Abandon(ctx, activation.KindTest, m.id())
	case nfv1.HostPhaseCommitting:
		return m.Activator.Abandon(ctx, activation.KindBoot, m.id())
	case nfv1.HostPhaseRollingBack:
		return errors.Join(
			// Going back may have begun while the forward run could not be ended.
			m.Activator.Abandon(ctx, activation.KindTest, m.id()),
			m.Activator.Abandon(ctx, activation.KindBoot, m.id()),
			m.Activator.Abandon(ctx, activation.KindTestUnchecked, m.id()),
			m.Activator.Abandon(ctx, activation.KindBoot, m.rollbackID()))
	default:
		return nil
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
		problem := m.goBack(ctx, o)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if problem != "" {
			return m.finish(ctx, nfv1.AttemptFailed, nfv1.ReasonRollbackFailed, message+"; going back failed: "+problem)
		}
	}
	m.journal.step(nfv1.HostPhaseFetching, m.Clock.Now())
	o.Again, o.ProfileTouched, o.Reason, o.Message, o.BootID = false, false, "", "", ""
	if err := m.save(); err != nil {
		m.Log.Error("Keep that the attempt begins again", "error", err)
	}
	return nil
}

// dropOpen forgets an attempt that waited to begin again and is not asked for any more.
func (m *Machine) dropOpen() {
	if m.journal.Open == nil || m.journal.Open.Step != nfv1.HostPhaseFetching {
		return
	}
	m.journal.Open = nil
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

// distrust brings a host whose journal was lost to a defined state. What the profile
// names was committed once; if something else runs, an attempt may have been under way,
// and nobody knows whether it was healthy.
func (m *Machine) distrust(ctx context.Context, lost error) {
	m.problem = lost.Error()
	running, _, err := m.Activator.Running()
	profile, _, perr := m.Profile.Current(ctx)
	if err != nil || perr != nil || running == "" || running == profile {
		return
	}
	m.Log.Warn("Going back to the system of the profile, since the journal was lost", "running", running, "profile", profile)
	result, err := m.Activator.TestUnchecked(ctx, profile, rollbackTimeout, "lost-journal")
	problem := fmt.Sprintf("; %s ran and the profile names %s, so the host went back to that", running, profile)
	if _, message := activationProblem(result, err); message != "" {
		problem = fmt.Sprintf("; %s runs, the profile names %s, and going back to that failed: %s", running, profile, message)
	}
	m.problem += problem
	m.Log.Error(m.problem)
}
