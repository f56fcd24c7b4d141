// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package rollout

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

// OverrideDecision is what to do about the spec.override of a host.
type OverrideDecision struct {
	// Assignment carries the override out; nil if nothing is to be done now.
	Assignment *Assignment

	// HeldBy is the rollout that has the host and must end first; nil if none has.
	HeldBy *nfv1.Rollout
}

// PlanOverride decides about the override of a host. It is carried out once for each id,
// and never while a rollout has the host: two that write the same assignment would take
// turns. Rollouts are those of the host's namespace.
func PlanOverride(h *nfv1.Host, rollouts []*nfv1.Rollout, now time.Time) OverrideDecision {
	if !OverridePending(h) {
		return OverrideDecision{}
	}
	if holder := overrideHolder(h, rollouts); holder != nil {
		return OverrideDecision{HeldBy: holder}
	}
	o, d := h.Spec.Override, nfv1.Desired{
		Revision:     nextRevision(h),
		Intent:       nfv1.IntentNone,
		AssignedTime: metav1.NewTime(now.Truncate(time.Second)),
		OverrideID:   h.Spec.Override.ID,
	}
	if o.StorePath != "" {
		d.Intent, d.StorePath = nfv1.IntentDeploy, o.StorePath
		if running := h.Status.Running; running != nil {
			d.PreviousStorePath = running.StorePath
		}
		if old := h.Spec.Desired; old != nil {
			// What was activated by hand is in the store; the caches are for the day on
			// which it is not.
			d.Caches, d.PreviousCaches = old.Caches, old.Caches
		}
	}
	return OverrideDecision{Assignment: &Assignment{Host: h, Desired: d}}
}

// OverridePending reports whether a host has an override that was not carried out yet.
func OverridePending(h *nfv1.Host) bool {
	o, d := h.Spec.Override, h.Spec.Desired
	return o != nil && h.DeletionTimestamp.IsZero() && (d == nil || d.OverrideID != o.ID)
}

// overrideHolder is the rollout that has the host: the one that would move it, or the
// one that does.
func overrideHolder(h *nfv1.Host, rollouts []*nfv1.Rollout) *nfv1.Rollout {
	all := newHolders(rollouts)
	if holder := all.of(h); holder != nil {
		return holder
	}
	for _, r := range all.rollouts {
		if holdsInFlight(r, h) {
			return r
		}
	}
	return nil
}
