// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package agent

import (
	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

// order is what a Host asks of the agent now.
type order int

const (
	// orderNothing: what is asked is done, refused or older than what was done.
	orderNothing order = iota
	// orderAcknowledge: nothing is asked; only the revision is new.
	orderAcknowledge
	// orderMove: another system is asked for.
	orderMove
)

// decide says what a Host asks, given what the agent remembers. A revision is carried
// out once: what failed under it is not tried again until a higher one asks for it. A
// lower revision than one that was taken up comes from a restored backup and is ignored.
func decide(j Journal, h *nfv1.Host) order {
	d := h.Spec.Desired
	switch {
	case d == nil || h.Spec.Lifecycle == nfv1.LifecycleMaintenance:
		return orderNothing
	case j.HostUID == h.UID && d.Revision < j.ObservedRevision:
		return orderNothing
	case j.HostUID == h.UID && d.Revision == j.ObservedRevision && (d.Intent == nfv1.IntentNone || ended(j, d.Revision)):
		return orderNothing
	case d.Intent == nfv1.IntentNone:
		return orderAcknowledge
	default:
		return orderMove
	}
}

func ended(j Journal, revision int64) bool {
	return j.Last != nil && j.Last.Revision == revision
}
