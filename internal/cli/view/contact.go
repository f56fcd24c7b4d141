// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package view

import (
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

// LastSeen returns when the API server last heard of the agent that renews the Lease, or
// the zero time if it never did. It is the server's time of the write, not renewTime,
// which is the host's own clock and may be wrong by years.
func LastSeen(lease *coordinationv1.Lease) time.Time {
	var seen time.Time
	if lease == nil {
		return seen
	}
	for _, entry := range lease.ManagedFields {
		if entry.Manager == nfv1.FieldOwnerAgent && entry.Time != nil && entry.Time.After(seen) {
			seen = entry.Time.Time
		}
	}
	return seen
}
