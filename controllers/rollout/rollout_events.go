// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package rollout

import (
	corev1 "k8s.io/api/core/v1"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/rollout"
)

// Actions of events: what the controller was doing.
const (
	actionPlan   = "Plan"
	actionAssess = "Assess"
)

// recordProgress records what an operator should know: that the rollout stands
// somewhere else, or for another reason, and each host that failed. It compares with
// the stored status, so that nothing is told twice.
func (r *Reconciler) recordProgress(ro *nfv1.Rollout, before *nfv1.RolloutStatus, d rollout.Decision) {
	if reason := d.Notes[0].Reason; d.Status.Phase != before.Phase || reason != readyReason(before) {
		r.Recorder.Eventf(ro, nil, eventType(d), reason, actionPlan, "%s", d.Status.Message)
	}
	known := map[nfv1.HostFailure]bool{}
	for _, f := range before.Failures {
		known[f] = true
	}
	for _, f := range d.Status.Failures {
		if !known[f] {
			r.Recorder.Eventf(ro, nil, corev1.EventTypeWarning, "HostFailed", actionAssess, "host %s failed: %s: %s", f.Host, f.Reason, f.Message)
		}
	}
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
