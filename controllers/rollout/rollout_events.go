// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package rollout

import (
	corev1 "k8s.io/api/core/v1"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/events"
	"github.com/nixfleet/nixfleet/internal/metrics"
	"github.com/nixfleet/nixfleet/internal/rollout"
)

// Actions of events: what the controller was doing.
const (
	actionPlan   = "Plan"
	actionAssess = "Assess"
)

// recordProgress tells what an operator should know: that the rollout stands somewhere
// else, or for another reason, and each host that failed. It is called once the new status
// is stored and compares it with the one before, so that nothing is told twice: neither by
// a plan that is made again nor by the leader after this one.
func (r *Reconciler) recordProgress(ro *nfv1.Rollout, before *nfv1.RolloutStatus, s rollout.Snapshot, d rollout.Decision) {
	if reason := d.Notes[0].Reason; d.Status.Phase != before.Phase || reason != readyReason(before) {
		r.Recorder.Eventf(ro, nil, eventType(d), reason, actionPlan, "%s", d.Status.Message)
	}
	listed, unlisted := newFailures(before, d)
	r.recordFailures(ro, s.Hosts, listed)
	r.Metrics.Advanced(metrics.NewProgress(ro.CreationTimestamp.Time, r.Clock.Now(), before, &d.Status, append(listed, unlisted...)))
}

// recordFailures records each failure on the Rollout and on the Host, each with the other
// as related object: events that differ in nothing but their text become one.
func (r *Reconciler) recordFailures(ro *nfv1.Rollout, hosts []*nfv1.Host, failures []nfv1.HostFailure) {
	if len(failures) == 0 {
		return
	}
	byName := make(map[nfv1.HostName]*nfv1.Host, len(hosts))
	for _, h := range hosts {
		byName[nfv1.HostName(h.Name)] = h
	}
	for _, f := range failures {
		host := byName[f.Host] // whoever failed is in the snapshot
		r.Recorder.Eventf(ro, host, corev1.EventTypeWarning, events.ReasonHostFailed, actionAssess, "host %s failed: %s: %s", f.Host, f.Reason, f.Message)
		r.Recorder.Eventf(host, ro, corev1.EventTypeWarning, events.HostReason(f.Reason), actionAssess,
			"failed in rollout %s: %s: %s", ro.Name, f.Reason, f.Message)
	}
}

// newFailures are the hosts that failed since the stored status. The status lists the
// first ones of each wave by name; beyond those only their number is known, and unlisted
// has as many of the hosts that may be meant.
func newFailures(before *nfv1.RolloutStatus, d rollout.Decision) (listed, unlisted []nfv1.HostFailure) {
	old := before
	if before.Attempt != d.Status.Attempt {
		old = &nfv1.RolloutStatus{} // a new attempt begins without failures
	}
	known, stored := listedFailures(old), listedFailures(&d.Status)
	more := map[string]int32{}
	for i := range d.Status.Waves {
		more[d.Status.Waves[i].Name] = d.Status.Waves[i].Failed
	}
	for i := range old.Waves {
		more[old.Waves[i].Name] -= old.Waves[i].Failed
	}
	for _, f := range d.Failed {
		if key := keyOf(f.Wave, f.Host); stored[key] && !known[key] {
			listed = append(listed, f)
			more[f.Wave]--
		}
	}
	for _, f := range d.Failed {
		if !stored[keyOf(f.Wave, f.Host)] && more[f.Wave] > 0 {
			unlisted = append(unlisted, f)
			more[f.Wave]--
		}
	}
	return listed, unlisted
}

type failureKey struct {
	wave string
	host nfv1.HostName
}

func keyOf(wave string, host nfv1.HostName) failureKey { return failureKey{wave, host} }

// listedFailures are the failures that a status names.
func listedFailures(s *nfv1.RolloutStatus) map[failureKey]bool {
	out := map[failureKey]bool{}
	for i := range s.Failures {
		out[keyOf(s.Failures[i].Wave, s.Failures[i].Host)] = true
	}
	for i := range s.Waves {
		for _, host := range s.Waves[i].FailedHosts {
			out[keyOf(s.Waves[i].Name, host)] = true
		}
	}
	return out
}

func readyReason(s *nfv1.RolloutStatus) string {
	for _, c := range s.Conditions {
		if c.Type == nfv1.ConditionReady {
			return c.Reason
		}
	}
	return ""
}

func eventType(d rollout.Decision) string {
	for _, c := range d.Status.Conditions {
		if c.Type == nfv1.ConditionStalled {
			return corev1.EventTypeWarning
		}
	}
	if d.Status.Phase == nfv1.RolloutPhaseBlocked {
		return corev1.EventTypeWarning
	}
	return corev1.EventTypeNormal
}

// beginsWith says whether the assignments of a decision are the first of the rollout: it
// has counted none, and no host remembers one.
func beginsWith(s rollout.Snapshot, d rollout.Decision) bool {
	if counts := s.Rollout.Status.Hosts; counts != nil && counts.Assigned > 0 {
		return false
	}
	for _, h := range s.Hosts {
		if desired := h.Spec.Desired; desired != nil && desired.Rollout != nil && desired.Rollout.UID == s.Rollout.UID {
			return false
		}
	}
	return len(d.Assignments) > 0
}
