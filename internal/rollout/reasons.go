// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package rollout

// Reasons of notes, conditions and events. The set is closed: user interfaces and
// alerts may rely on it.
const (
	// ReasonProgressing means that hosts are being moved.
	ReasonProgressing = "Progressing"
	// ReasonSucceeded means that every host was moved.
	ReasonSucceeded = "Succeeded"
	// ReasonSoaking means that a finished wave is being watched.
	ReasonSoaking = "Soaking"
	// ReasonAwaitingApproval means that a wave waits for its name in approvedWaves.
	ReasonAwaitingApproval = "AwaitingApproval"
	// ReasonPaused means that spec.state is Paused.
	ReasonPaused = "Paused"
	// ReasonTooManyFailures means that more hosts failed than the threshold allows.
	ReasonTooManyFailures = "TooManyFailures"
	// ReasonCancelling means that hosts in flight hold the end of a cancelled rollout.
	ReasonCancelling = "Cancelling"
	// ReasonCancelled means that spec.state is Cancelled and nothing is in flight.
	ReasonCancelled = "Cancelled"
	// ReasonReverting means that hosts are being sent back.
	ReasonReverting = "Reverting"
	// ReasonReverted means that every host was sent back.
	ReasonReverted = "Reverted"
	// ReasonRevertIncomplete means that a host could not be sent back.
	ReasonRevertIncomplete = "RevertIncomplete"
	// ReasonNoHosts means that the rollout has nothing to move.
	ReasonNoHosts = "NoHosts"
	// ReasonReleaseNotFound means that there is no Release of that name yet.
	ReasonReleaseNotFound = "ReleaseNotFound"
	// ReasonReleaseGone means that the Release was deleted, or made anew.
	ReasonReleaseGone = "ReleaseGone"
	// ReasonReleaseNotVerified means that the Release is not Verified, or not yet.
	ReasonReleaseNotVerified = "ReleaseNotVerified"
	// ReasonOlderRelease means that a target runs something newer.
	ReasonOlderRelease = "OlderRelease"
	// ReasonHeld means that an older unfinished rollout selects the host.
	ReasonHeld = "HeldByRollout"
	// ReasonFleetUnreachable means that most of the fleet went silent at once.
	ReasonFleetUnreachable = "FleetUnreachable"
	// ReasonEmptyWave means that the selector of a wave matches no target.
	ReasonEmptyWave = "EmptyWave"
	// ReasonAllHostsOffline means that no host of the wave is online.
	ReasonAllHostsOffline = "AllHostsOffline"
	// ReasonNoneSucceeded means that no host of the wave succeeded, although the
	// threshold was not exceeded.
	ReasonNoneSucceeded = "NoneSucceeded"
	// ReasonOffline means that an offline host holds its wave (offlinePolicy: Wait) or
	// is left for later (Defer).
	ReasonOffline = "Offline"
	// ReasonCapacity means that as many hosts as maxUnavailable allows are unavailable.
	ReasonCapacity = "Capacity"
	// ReasonWithdrawn means that the assignment of a host that had not begun is taken
	// back, because the rollout was stopped.
	ReasonWithdrawn = "Withdrawn"
	// ReasonNotFound means that spec.hosts names a Host that does not exist.
	ReasonNotFound = "NotFound"
	// ReasonClosureMissing means that the Release has no closure for the host.
	ReasonClosureMissing = "ClosureMissing"
	// ReasonLifecycle means that the host's lifecycle keeps it out.
	ReasonLifecycle = "Lifecycle"
	// ReasonDeleting means that the Host is being deleted.
	ReasonDeleting = "Deleting"
	// ReasonNotSelected means that the rollout does not select the host.
	ReasonNotSelected = "NotSelected"
	// ReasonTimeout means that a host did not finish in time.
	ReasonTimeout = "Timeout"
	// ReasonUnhealthy means that a host became unhealthy while its wave soaked.
	ReasonUnhealthy = "Unhealthy"
	// ReasonNoPrevious means that it is not known what a host ran before.
	ReasonNoPrevious = "NoPreviousSystem"
	// ReasonInvalidSelector means that a selector cannot be evaluated.
	ReasonInvalidSelector = "InvalidSelector"
)
