// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package events

import (
	"slices"

	corev1 "k8s.io/api/core/v1"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/rollout"
)

// Kinds of objects that events are recorded on.
const (
	KindHost    = "Host"
	KindRelease = "Release"
	KindRollout = "Rollout"
)

// Reasons of events that are not also reasons of a condition, an attempt or a plan.
const (
	// ReasonOnline means that the agent of a host is heard of again.
	ReasonOnline = "Online"
	// ReasonOffline means that the agent of a host has fallen silent.
	ReasonOffline = "Offline"
	// ReasonInvalidKey means that a pinned key cannot be read.
	ReasonInvalidKey = "InvalidKey"
	// ReasonSharedKey means that two Hosts pin the same key.
	ReasonSharedKey = "SharedKey"
	// ReasonOverrideCarriedOut means that spec.override of a Host was carried out.
	ReasonOverrideCarriedOut = "OverrideCarriedOut"
	// ReasonOverrideWaits means that a rollout has the host of an override.
	ReasonOverrideWaits = "OverrideWaits"
	// ReasonHostFailed means that a host failed in a rollout.
	ReasonHostFailed = "HostFailed"
)

// Definition declares a reason of events on a kind of object.
type Definition struct {
	Reason string
	Kind   string
	// Types are Normal, Warning or both, where it depends on the moment.
	Types []string
	// Meaning says what happened.
	Meaning string
	// Action says what to do about it; empty if nothing.
	Action string
}

// Table declares every event that the manager records.
func Table() []Definition {
	return slices.Concat(rolloutTable(), releaseTable(), hostTable(), failureTable())
}

// Reasons are those of the events on a kind of object.
func Reasons(kind string) []string {
	var out []string
	for _, d := range Table() {
		if d.Kind == kind {
			out = append(out, d.Reason)
		}
	}
	return out
}

// HostReason is the reason of an event on a host that failed for a reason that the host
// itself may have given: only those that are known become reasons of events.
func HostReason(failure string) string {
	if slices.Contains(FailureReasons(), failure) {
		return failure
	}
	return ReasonHostFailed
}

// FailureReasons are the known reasons for which a host fails in a rollout.
func FailureReasons() []string {
	var out []string
	for _, d := range failureTable() {
		out = append(out, d.Reason)
	}
	return out
}

func normal() []string  { return []string{corev1.EventTypeNormal} }
func warning() []string { return []string{corev1.EventTypeWarning} }
func either() []string  { return []string{corev1.EventTypeNormal, corev1.EventTypeWarning} }

func rolloutTable() []Definition {
	on := func(reason string, types []string, meaning, action string) Definition {
		return Definition{Reason: reason, Kind: KindRollout, Types: types, Meaning: meaning, Action: action}
	}
	return []Definition{
		on(rollout.ReasonProgressing, normal(), "Hosts are being moved.", ""),
		on(rollout.ReasonSoaking, normal(), "A wave has finished and is being watched.", ""),
		on(rollout.ReasonAwaitingApproval, normal(), "The next wave asks for approval.",
			"Look at the waves so far; add the wave's name to `spec.approvedWaves`."),
		on(rollout.ReasonSucceeded, normal(), "Every host was moved; deferred ones have their assignment.", ""),
		on(rollout.ReasonPaused, normal(), "`spec.state` is Paused.", "Set it to Running to go on."),
		on(rollout.ReasonTooManyFailures, either(), "More hosts of a wave failed than `failureThreshold` allows. Nothing more is assigned.",
			"See [a rollout is paused](metrics.md#a-rollout-is-paused-after-failures)."),
		on(rollout.ReasonCancelling, normal(), "The rollout ends when the hosts in flight have finished.", ""),
		on(rollout.ReasonCancelled, warning(), "The rollout was cancelled or deleted, and nothing is in flight.", ""),
		on(rollout.ReasonReverting, normal(), "Hosts are being sent back to what they ran before.", ""),
		on(rollout.ReasonReverted, warning(), "Every host was sent back.", "Find out why hosts failed before you try the release again."),
		on(rollout.ReasonRevertIncomplete, warning(), "A host could not be sent back.", "Look at the hosts that the message names."),
		on(rollout.ReasonNoHosts, warning(), "There is nothing to move.", "Correct the selector or the names in a new rollout."),
		on(rollout.ReasonReleaseNotFound, warning(), "There is no Release of that name.", "Create it; the rollout then goes on."),
		on(rollout.ReasonReleaseGone, warning(), "The Release was deleted, or made anew under the same name.", "Create another rollout."),
		on(rollout.ReasonReleaseNotVerified, either(), "A wave waits for its Release to be verified.",
			"See [a release is not verified](metrics.md#a-rollout-waits-for-its-release)."),
		on(rollout.ReasonOlderRelease, warning(), "A target runs something newer.", "Set `olderRelease: Allow` in a new rollout to go back on purpose."),
		on(rollout.ReasonHeld, warning(), "An older unfinished rollout has the hosts.", "Wait, or end it as the message says."),
		on(rollout.ReasonFleetUnreachable, warning(), "Most of the fleet went silent at once. Nothing is assigned and no host times out.",
			"Look at the agent gateway and the network."),
		on(rollout.ReasonEmptyWave, warning(), "The selector of a wave matches no target.", "Label a host, or correct the selector in a new rollout."),
		on(rollout.ReasonAllHostsOffline, warning(), "No host of the wave is online.", "Wait for one to return, or cancel."),
		on(rollout.ReasonNoneSucceeded, warning(), "No host of the wave succeeded, although the threshold was not exceeded.",
			"Raise `spec.attempt` to try again, or cancel."),
		on(rollout.ReasonOffline, warning(), "An offline host holds its wave, as `offlinePolicy: Wait` asks.", "Bring it back, or put it into Maintenance."),
		on(rollout.ReasonCapacity, warning(), "As many hosts as `maxUnavailable` allows are unavailable.", "Repair them, or cancel."),
		on(rollout.ReasonInvalidSelector, warning(), "A selector cannot be evaluated.", "Correct it in a new rollout."),
		on(ReasonHostFailed, warning(), "A host failed; the related object is the Host. At most 100 a wave.",
			"Look at the events and the `status.attempt` of the Host."),
	}
}

func releaseTable() []Definition {
	on := func(reason string, types []string, meaning, action string) Definition {
		return Definition{Reason: reason, Kind: KindRelease, Types: types, Meaning: meaning, Action: action}
	}
	return []Definition{
		on(nfv1.ReasonVerifying, normal(), "The check is under way.", ""),
		on(nfv1.ReasonVerified, normal(), "Every closure can be fetched whole and is signed.", ""),
		on(nfv1.ReasonVerificationSkipped, normal(), "`spec.verification` is Skip.", ""),
		on(nfv1.ReasonMissingPaths, warning(), "A store path is in none of the caches.", "Push the closures that `status.offenders` names."),
		on(nfv1.ReasonUntrustedSignature, warning(), "No listed key signed a path.", "Sign it, or list the key in a new Release."),
		on(nfv1.ReasonInvalid, warning(), "A cache served something that is not valid.", "Look at the cache: `status.offenders` has the paths."),
		on(nfv1.ReasonCacheUnreachable, warning(), "A cache could not be asked. It is asked again.", "Look at the cache and at the network of the manager."),
		on(nfv1.ReasonInternalError, warning(), "The check failed for another reason. It is tried again.", "Look at the log of the manager."),
	}
}

func hostTable() []Definition {
	on := func(reason string, types []string, meaning, action string) Definition {
		return Definition{Reason: reason, Kind: KindHost, Types: types, Meaning: meaning, Action: action}
	}
	return []Definition{
		on(ReasonOnline, normal(), "The agent renews the host's Lease.", ""),
		on(ReasonOffline, normal(), "The Lease has not moved for `--host-offline-after`. Laptops sleep: this is no warning.", "See [hosts are offline](metrics.md#many-hosts-are-offline) if it should not."),
		on(ReasonInvalidKey, warning(), "A key in `spec.identity.publicKeys` cannot be read. It lets nobody in.",
			"Correct it: one line as in `authorized_keys`."),
		on(ReasonSharedKey, warning(), "Another Host, the related object, pins the same key: whoever holds it can act for both.", "Give each host a key of its own."),
		on(ReasonOverrideCarriedOut, normal(), "`spec.override` was carried out.", ""),
		on(ReasonOverrideWaits, normal(), "A rollout, the related object, has the host. The override is carried out when that ends.", "Wait, or cancel the rollout."),
		on(ReasonHostFailed, warning(), "The host failed in the related rollout, for a reason that is none of those below; the message has it.", "Look at `status.attempt`."),
	}
}

// failureTable has the reasons for which a host fails. They are recorded on the Host, with
// the Rollout as related object.
func failureTable() []Definition {
	on := func(reason, meaning, action string) Definition {
		return Definition{Reason: reason, Kind: KindHost, Types: warning(), Meaning: meaning, Action: action}
	}
	const journal = "Look at the journal of `nixfleet-agent` on the host."
	return []Definition{
		on(nfv1.ReasonUntrustedSignature, "No key of the agent's own configuration signed the closure.", "Sign with a key in the host's `trustedPublicKeys`."),
		on(nfv1.ReasonWrongHost, "The closure was made for another host or platform, or does not say.", "Correct the entry of the Release."),
		on(nfv1.ReasonAgentMissing, "The closure has no enabled agent: the host could never be reached again.", "Enable the agent in the configuration."),
		on(nfv1.ReasonUnsupported, "The closure has no switch-to-configuration, or the host cannot do what is asked.", "Build a NixOS or nix-darwin system."),
		on(nfv1.ReasonFetchFailed, "The closure could not be fetched from any cache.", "Look at the caches from the host."),
		on(nfv1.ReasonDiskPressure, "There is too little disk space for the closure.", "Collect garbage or enlarge the disk."),
		on(nfv1.ReasonActivationFailed, "switch-to-configuration failed.", journal),
		on(nfv1.ReasonActivationTimeout, "switch-to-configuration did not end in time.", journal),
		on(nfv1.ReasonHealthCheckFailed, "A health check did not pass in time.", "Look at `status.healthChecks`."),
		on(nfv1.ReasonConfirmTimeout, "The new system could not report in time: its network, or its agent, does not work.", journal),
		on(nfv1.ReasonCommitFailed, "The profile or the boot default could not be set.", journal),
		on(nfv1.ReasonInterrupted, "The agent was interrupted in mid-attempt and went back.", "Raise `spec.attempt` to try again."),
		on(nfv1.ReasonHostRebooted, "The host rebooted in mid-attempt, into what it ran before.", "Find out why it rebooted."),
		on(nfv1.ReasonInterruptedCommit, "The host rebooted into what it ran before although the new system was confirmed.", journal),
		on(nfv1.ReasonRollbackFailed, "The host could not go back to what it ran before.", "Repair it by hand: neither system runs whole."),
		on(nfv1.ReasonInternalError, "Something failed that should not.", journal),
		on(rollout.ReasonTimeout, "The host did not finish within `hostTimeoutSeconds`.", "Look whether it is online and what its agent does."),
		on(rollout.ReasonUnhealthy, "The host became unhealthy while its wave soaked.", "Look at `status.healthChecks`."),
		on(string(nfv1.AttemptRolledBack), "The host went back to what it ran before and gave no reason.", journal),
		on(string(nfv1.AttemptFailed), "The attempt failed and the host gave no reason.", journal),
		on(string(nfv1.AttemptRefused), "The host refused the closure and gave no reason.", journal),
	}
}
