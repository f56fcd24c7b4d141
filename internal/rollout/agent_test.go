// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package rollout

import (
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

// simAgent is a host as it really is. The API knows of it what was reported last, which
// may be old.
type simAgent struct {
	uid      types.UID
	observed int64
	phase    nfv1.HostPhase
	attempt  *nfv1.HostAttempt
	running  nfv1.StorePath
	healthy  metav1.ConditionStatus

	// done are the assignments that the host really carried out.
	done map[assignmentKey]bool

	// sent are the reports that were made, for those that arrive late or twice.
	sent []report
}

// assignmentKey names an assignment exactly.
type assignmentKey struct {
	host, rollout types.UID
	revision      int64
	path          nfv1.StorePath
}

func newSimAgent(uid types.UID, running nfv1.StorePath) *simAgent {
	return &simAgent{
		uid: uid, phase: nfv1.HostPhaseIdle, running: running, healthy: metav1.ConditionTrue, done: map[assignmentKey]bool{},
	}
}

// report is what an agent says of its host.
type report struct {
	uid      types.UID
	observed int64
	phase    nfv1.HostPhase
	attempt  *nfv1.HostAttempt
	running  nfv1.StorePath
	healthy  metav1.ConditionStatus
}

func (a *simAgent) report() report {
	r := report{uid: a.uid, observed: a.observed, phase: a.phase, running: a.running, healthy: a.healthy}
	if a.attempt != nil {
		r.attempt = a.attempt.DeepCopy()
	}
	return r
}

// deliver stores a report in the Host, as the API server does when the gateway applies it.
func (w *world) deliver(h *nfv1.Host, r report) {
	if r.uid != h.UID {
		return // the gateway names the uid: a report about a Host that is gone is refused
	}
	h.Status.ObservedRevision, h.Status.Phase, h.Status.Attempt = r.observed, r.phase, r.attempt.DeepCopy()
	h.Status.ObservedGeneration = h.Generation
	h.Status.Running = &nfv1.SystemGeneration{StorePath: r.running}
	reason := nfv1.ReasonUpToDate
	if r.healthy != metav1.ConditionTrue {
		reason = nfv1.ReasonHealthCheckFailed
	}
	w.setCondition(h, nfv1.ConditionHealthy, r.healthy, reason)
}

// say reports what the host is like now, if the host can be heard.
func (w *world) say(h *nfv1.Host) {
	a := w.agents[h.Name]
	a.sent = append(a.sent, a.report())
	w.deliver(h, a.report())
}

// agent lets the agent of an online host do one thing and report it: take an assignment
// up, or end the one that it has taken up. It answers false when there is nothing to do.
func (w *world) agent(h *nfv1.Host) bool {
	if !isOnline(h) {
		return false
	}
	a := w.agents[h.Name]
	before := a.report()
	if !w.look(h) {
		w.finish(h)
	}
	if !sameReport(before, a.report()) || !w.knows(h) {
		w.say(h)
		return true
	}
	return false
}

// look takes up what the Host asks, if it is new. A newer order is taken up at once
// while the host is fetching, and after the outcome later on.
func (w *world) look(h *nfv1.Host) bool {
	a, d := w.agents[h.Name], h.Spec.Desired
	if a.uid != h.UID {
		a.uid, a.observed, a.attempt, a.phase = h.UID, 0, nil, nfv1.HostPhaseIdle
	}
	if d == nil || d.Revision <= a.observed || a.phase == nfv1.HostPhaseActivating {
		return false
	}
	a.observed = d.Revision
	if d.Intent == nfv1.IntentNone {
		a.phase, a.attempt = nfv1.HostPhaseIdle, nil
		return true
	}
	a.phase = nfv1.HostPhaseFetching
	a.attempt = &nfv1.HostAttempt{Revision: d.Revision, StorePath: d.StorePath}
	if d.Rollout != nil {
		a.attempt.RolloutUID = d.Rollout.UID
	}
	return true
}

// finish brings what was taken up one step on: it is activated, and then it succeeds or
// the host goes back.
func (w *world) finish(h *nfv1.Host) {
	a := w.agents[h.Name]
	switch {
	case a.attempt == nil || a.attempt.Outcome != "":
	case a.phase == nfv1.HostPhaseFetching:
		a.phase = nfv1.HostPhaseActivating
	case a.phase == nfv1.HostPhaseActivating && (w.broken[string(a.attempt.StorePath)] || w.broken[h.Name]):
		a.phase = nfv1.HostPhaseIdle
		a.attempt.Outcome, a.attempt.Reason = nfv1.AttemptRolledBack, nfv1.ReasonHealthCheckFailed
		a.attempt.Message = "health check web did not pass within 30 s"
	case a.phase == nfv1.HostPhaseActivating:
		a.phase, a.running = nfv1.HostPhaseIdle, a.attempt.StorePath
		a.attempt.Outcome, a.attempt.Reason = nfv1.AttemptSucceeded, nfv1.ReasonCompleted
		a.done[assignmentKey{h.UID, a.attempt.RolloutUID, a.attempt.Revision, a.attempt.StorePath}] = true
	}
}

// knows reports whether the API has the last word of the host.
func (w *world) knows(h *nfv1.Host) bool {
	a := w.agents[h.Name]
	return sameReport(a.report(), report{
		uid: h.UID, observed: h.Status.ObservedRevision, phase: h.Status.Phase, attempt: h.Status.Attempt,
		running: runningPath(h), healthy: healthStatus(h),
	})
}

func sameReport(a, b report) bool {
	x, y := a.attempt, b.attempt
	a.attempt, b.attempt = nil, nil
	if a != b || (x == nil) != (y == nil) {
		return false
	}
	return x == nil || x.Revision == y.Revision && x.StorePath == y.StorePath && x.RolloutUID == y.RolloutUID && x.Outcome == y.Outcome
}

func runningPath(h *nfv1.Host) nfv1.StorePath {
	if h.Status.Running == nil {
		return ""
	}
	return h.Status.Running.StorePath
}

func healthStatus(h *nfv1.Host) metav1.ConditionStatus {
	if c := meta.FindStatusCondition(h.Status.Conditions, nfv1.ConditionHealthy); c != nil {
		return c.Status
	}
	return ""
}

// setHealth lets a host fall ill or recover, and say so if it can.
func (w *world) setHealth(name string, status metav1.ConditionStatus) {
	w.agents[name].healthy = status
	if h := w.host(name); isOnline(h) {
		w.say(h)
	}
}
