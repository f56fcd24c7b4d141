// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package rollout

import (
	"sort"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

// minFleetLoss is how many hosts must go silent at once before it counts as a loss of
// the fleet: two laptops that are closed together are no outage.
const minFleetLoss = 3

// fleetLoss says that most of the fleet went silent within one offline window. A gateway
// or network outage looks like that, and is not a failure of the hosts.
type fleetLoss struct {
	// lost hosts of the online ones went silent; 0 means that there was no loss.
	lost, online int
}

// findFleetLoss looks for an offline window in which at least 3 and more than half of
// the hosts that were online went silent, and are silent still.
func findFleetLoss(hosts []*nfv1.Host, window time.Duration) fleetLoss {
	online := 0
	var silent []time.Time
	for _, h := range hosts {
		c := meta.FindStatusCondition(h.Status.Conditions, nfv1.ConditionOnline)
		switch {
		case c == nil || !takesPart(h):
		case isOnline(h):
			online++
		case c.Reason == nfv1.ReasonLeaseExpired:
			silent = append(silent, c.LastTransitionTime.Time)
		}
	}
	sort.Slice(silent, func(i, j int) bool { return silent[i].Before(silent[j]) })
	end := 0
	for start := range silent {
		for end < len(silent) && silent[end].Sub(silent[start]) <= window {
			end++
		}
		lost := end - start
		before := online + len(silent) - start
		if lost >= minFleetLoss && lost*2 > before {
			return fleetLoss{lost: lost, online: before}
		}
	}
	return fleetLoss{}
}
