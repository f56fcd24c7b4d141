// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package rollout

import (
	"time"

	"k8s.io/apimachinery/pkg/types"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

// Snapshot is everything that a decision about one rollout rests on, read at one
// moment. Plan never changes it.
type Snapshot struct {
	// Rollout is the rollout to plan, with its stored status.
	Rollout *nfv1.Rollout

	// Release is the release that the rollout names; nil if there is none.
	Release *nfv1.Release

	// Hosts are all hosts of the namespace, in any order. All of them, not only the
	// targets: whether the fleet is reachable is judged by all.
	Hosts []*nfv1.Host

	// Rollouts are all rollouts of the namespace, this one included, in any order.
	Rollouts []*nfv1.Rollout

	// OfflineWindow is how long the Lease of a host may stand still before the host
	// counts as offline. It is also the window in which a loss of many hosts counts
	// as a loss of the fleet.
	OfflineWindow time.Duration

	// Releases are the releases that hosts run or ran, by UID, to compare ages. A
	// release that is gone is absent.
	Releases map[types.UID]*nfv1.Release
}

// Decision is what to do about a rollout. The caller writes Status if it differs from
// the stored one before the assignments when Status.Waves gained a start or the phase
// changed to a phase that assigns, carries the assignments out, and looks again when
// something changes or RecheckAfter is over.
type Decision struct {
	// Status is the status to store, conditions included. It says what is true before
	// the assignments are carried out, so that a crash between the writes loses nothing.
	Status nfv1.RolloutStatus

	// Assignments are the hosts to write, in the order in which to write them.
	Assignments []Assignment

	// UseRelease says that the rollout needs the release to stay: the finalizer
	// nixfleet.io/in-use must be on it before the first assignment.
	UseRelease bool

	// HoldDeletion says that the rollout's own finalizer must stay: hosts are in flight.
	HoldDeletion bool

	// RecheckAfter is when to look again if nothing changes; 0 means never.
	RecheckAfter time.Duration

	// Failed are all hosts whose assignment failed and that are not to be tried again. The
	// status has the first ones alone.
	Failed []nfv1.HostFailure

	// Notes say what is held and why, the most important first. The first one is also
	// the message of the status.
	Notes []Note
}

// Assignment is a value of spec.desired to write to a host, on the host as it was in
// the snapshot.
type Assignment struct {
	// Host is the host of the snapshot: its UID and resource version are the
	// preconditions of the write.
	Host *nfv1.Host

	// Desired is the whole new value of spec.desired.
	Desired nfv1.Desired
}

// Note says why something is held, or what was decided.
type Note struct {
	// Wave is the wave that the note is about; empty for the whole rollout.
	Wave string

	// Host is the host that the note is about; empty for a wave or the whole rollout.
	Host string

	// Reason is a CamelCase word of a closed set, see reasons.go.
	Reason string

	// Message is a sentence with the numbers.
	Message string
}
