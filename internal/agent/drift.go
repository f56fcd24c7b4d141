// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package agent

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/nix"
)

// drift says what runs instead of what the last attempt that succeeded brought; empty if
// that runs.
func (m *Machine) drift(s *nfv1.HostStatus) string {
	if s.Running == nil || m.journal.Good == "" || string(s.Running.StorePath) == string(m.journal.Good) {
		return ""
	}
	text := fmt.Sprintf("%s runs; the last move was to %s", s.Running.StorePath, m.journal.Good)
	if u := m.journal.Uncorrected; u != nil && nfv1.StorePath(u.Running) == s.Running.StorePath {
		text += "; going back to that was tried: " + u.Why
	}
	return text
}

// Uncorrected is a drift that could not be corrected. It is not tried again while the same
// runs.
type Uncorrected struct {
	// Running is what runs instead.
	Running nix.StorePath `json:"running"`

	// Why is what became of the try.
	Why string `json:"why"`
}

// drifted reports whether the host has to go back by itself to the last system that
// succeeded: somebody activated another one, its policy says so, and nothing else is asked.
func (m *Machine) drifted() (running nix.StorePath, yes bool) {
	h, j := m.host, &m.journal
	if h == nil || m.DryRun || j.Open != nil || j.Good == "" || j.HostUID != h.UID ||
		h.Spec.Activation.Drift != nfv1.DriftCorrect || h.Spec.Activation.Mode == nfv1.ActivationModeBoot ||
		h.Spec.Lifecycle == nfv1.LifecycleMaintenance || decide(*j, h) != orderNothing {
		return "", false
	}
	if j.Last != nil && j.Last.Reason == nfv1.ReasonRollbackFailed {
		return "", false // nobody has activated that by hand; somebody has to look
	}
	running, _, err := m.Activator.Running()
	if err != nil || running == "" || running == j.Good || j.Uncorrected != nil && j.Uncorrected.Running == running {
		return "", false
	}
	return running, true
}

// openCorrection opens an attempt that no order asks for. It answers no order either: the
// outcome of the last one stays as it is.
func (m *Machine) openCorrection(running nix.StorePath) error {
	now := m.Clock.Now()
	m.journal.Open = &OpenAttempt{
		HostAttempt: nfv1.HostAttempt{Revision: m.journal.ObservedRevision, StorePath: nfv1.StorePath(m.journal.Good), StartedAt: stamp(now)},
		Step:        nfv1.HostPhaseFetching, Since: now, Correction: true, Previous: running,
		Timeout: seconds(m.host.Spec.Activation.ActivationTimeoutSeconds, defaultActivationTimeout),
	}
	m.journal.Host = remembered(m.host)
	if err := m.save(); err != nil {
		m.journal.Open = nil
		return err
	}
	return nil
}

// correct carries the correction out, by the same steps as any attempt.
func (m *Machine) correct(ctx context.Context) error {
	target := nix.StorePath(m.journal.Open.StorePath)
	m.Log.Warn("Correcting drift", "running", m.journal.Open.Previous, "storePath", target)
	var caches []nfv1.CacheURL
	if d := m.host.Spec.Desired; d != nil {
		caches = slices.Concat(d.Caches, d.PreviousCaches)
		slices.Sort(caches)
		caches = slices.Compact(caches)
	}
	if err := m.fetchSystem(ctx, target, caches); err != nil {
		return m.fetchFailed(ctx, err)
	}
	if done, err := m.activate(ctx, target); done || err != nil {
		return err
	}
	return m.prove(ctx, target)
}

// endCorrection closes the open attempt, which no order had asked for.
func (j *Journal) endCorrection(outcome nfv1.AttemptOutcome, reason, message string) {
	j.Uncorrected = nil
	if outcome != nfv1.AttemptSucceeded {
		j.Uncorrected = &Uncorrected{Running: j.Open.Previous, Why: shorten(fmt.Sprintf("%s, %s: %s", outcome, reason, message), 512)}
	}
	j.Open = nil
}

// abandonCorrection forgets a correction that was cut short. One that was taken up and ended
// its agent is not tried again.
func (m *Machine) abandonCorrection() {
	o := m.journal.Open
	if o.Interruptions > 0 {
		m.journal.endCorrection(nfv1.AttemptFailed, nfv1.ReasonInterrupted, "the agent was interrupted")
	}
}

// correctDrift goes back to the last system that succeeded if the host's policy says so.
func (a *Agent) correctDrift(ctx context.Context) {
	m := a.machine
	running, yes := m.drifted()
	if !yes {
		return
	}
	if err := m.openCorrection(running); err != nil {
		a.log.Error("Correct drift", "error", err)
		return
	}
	a.carryOut(ctx, m.host, m.correct)
}

// notices are the events that a change of conditions is worth.
func notices(before, after nfv1.HostStatus) []queuedEvent {
	var events []queuedEvent
	for _, kind := range []struct{ condition, bad, good, reason, over string }{
		{nfv1.ConditionHealthy, "False", "True", nfv1.ReasonUnhealthy, "Healthy"},
		{nfv1.ConditionDrifted, "True", "False", nfv1.ConditionDrifted, "DriftEnded"},
		{nfv1.ConditionRebootRequired, "True", "False", nfv1.ConditionRebootRequired, ""},
	} {
		was, is := condition(before, kind.condition), condition(after, kind.condition)
		switch {
		case is.Status == "" || was.Status == is.Status:
		case string(is.Status) == kind.bad:
			events = append(events, queuedEvent{corev1.EventTypeWarning, kind.reason, shorten(is.Message, 1000)})
		case string(is.Status) == kind.good && string(was.Status) == kind.bad && kind.over != "":
			events = append(events, queuedEvent{corev1.EventTypeNormal, kind.over, shorten("no longer: "+was.Message, 1000)})
		}
	}
	return events
}

// condition is the one of this type; the zero value if there is none.
func condition(s nfv1.HostStatus, kind string) metav1.Condition {
	if c := meta.FindStatusCondition(s.Conditions, kind); c != nil {
		return *c
	}
	return metav1.Condition{}
}

// notify records what changed for the worse or back at rest, as against the last report, or
// against what an earlier agent had reported.
func (m *Machine) notify(after nfv1.HostStatus) {
	before := m.reported
	if len(before.Conditions) == 0 {
		before = m.host.Status
	}
	for _, e := range notices(before, after) {
		m.Reporter.Event(e.kind, e.reason, e.note)
	}
}
