// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package metrics

import (
	"cmp"
	"slices"

	"k8s.io/apimachinery/pkg/api/meta"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/events"
)

// tellRollouts has the series of single rollouts: of the oldest unfinished ones.
func tellRollouts(rollouts []nfv1.Rollout) []sample {
	var out []sample
	for _, ro := range oldestUnfinished(rollouts) {
		reason := ""
		if c := meta.FindStatusCondition(ro.Status.Conditions, nfv1.ConditionReady); c != nil {
			reason = oneOf(c.Reason, events.Reasons(events.KindRollout))
		}
		out = append(out, sample{RolloutInfo, []string{ro.Namespace, ro.Name, phase(ro), reason}, 1})
		counts := ro.Status.Hosts
		if counts == nil {
			counts = &nfv1.HostCounts{}
		}
		for name, n := range map[string]int32{
			"Total": counts.Total, "Assigned": counts.Assigned, "Succeeded": counts.Succeeded, "Failed": counts.Failed,
			"Deferred": counts.Deferred, "Skipped": counts.Skipped, "Unassigned": counts.Unassigned,
		} {
			out = append(out, sample{RolloutHosts, []string{ro.Namespace, ro.Name, name}, float64(n)})
		}
	}
	return out
}

func oldestUnfinished(rollouts []nfv1.Rollout) []*nfv1.Rollout {
	var out []*nfv1.Rollout
	for i := range rollouts {
		if !rollouts[i].Status.Phase.Finished() {
			out = append(out, &rollouts[i])
		}
	}
	slices.SortFunc(out, func(a, b *nfv1.Rollout) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.UID, b.UID))
	})
	return out[:min(len(out), Most)]
}
