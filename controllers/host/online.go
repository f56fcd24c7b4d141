// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package host

import (
	"fmt"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

// sighting is what this process has seen of a host's Lease.
type sighting struct {
	lease   types.UID
	renewed time.Time // What the Lease says, by the host's clock; zero before the first renewal.
	since   time.Time // When this process first saw the Lease.
	moved   time.Time // When it last saw the Lease change; zero if it never has.
}

// observe adds a look at the Lease to what was seen before. A Lease that was made anew
// is another Lease. Any change of the renewal time counts, backwards too: a host whose
// clock is set right is alive.
func observe(seen *sighting, lease *coordinationv1.Lease, now time.Time) sighting {
	var renewed time.Time
	if lease.Spec.RenewTime != nil {
		renewed = lease.Spec.RenewTime.Time
	}
	if seen == nil || seen.lease != lease.UID {
		return sighting{lease: lease.UID, renewed: renewed, since: now}
	}
	next := *seen
	if !renewed.Equal(seen.renewed) {
		next.renewed, next.moved = renewed, now
	}
	return next
}

// online judges whether a host is heard of, and says when to look again if nothing
// happens until then; zero is never. stored is the condition as the Host has it, nil if
// it has none.
//
// A process that has just become the leader has seen nothing move yet. It lets the
// stored value stand for one window, so that a change of leader neither takes a fleet
// offline nor brings back a host that is gone.
func online(now time.Time, window time.Duration, seen sighting, stored *metav1.Condition) (metav1.Condition, time.Duration) {
	if !seen.moved.IsZero() {
		if left := seen.moved.Add(window).Sub(now); left > 0 {
			return condition(stored, now, metav1.ConditionTrue, nfv1.ReasonLeaseRenewed, "the agent renews the host's Lease"), left
		}
	} else if stored != nil && stored.Status == metav1.ConditionTrue {
		if left := seen.since.Add(window).Sub(now); left > 0 {
			return *stored, left
		}
	}
	if seen.renewed.IsZero() {
		return condition(stored, now, metav1.ConditionUnknown, nfv1.ReasonNeverSeen, "no agent has renewed the host's Lease yet"), 0
	}
	message := fmt.Sprintf("the host's Lease was not seen to move within %s", window)
	return condition(stored, now, metav1.ConditionUnknown, nfv1.ReasonLeaseExpired, message), 0
}

// condition returns the condition Online. The time of transition is that of the stored
// one unless the status differs: waiting for a host counts from it.
func condition(stored *metav1.Condition, now time.Time, status metav1.ConditionStatus, reason, message string) metav1.Condition {
	c := metav1.Condition{
		Type: nfv1.ConditionOnline, Status: status, Reason: reason, Message: message,
		LastTransitionTime: metav1.NewTime(now.Truncate(time.Second)),
	}
	if stored != nil && stored.Status == status {
		c.LastTransitionTime = stored.LastTransitionTime
	}
	return c
}
