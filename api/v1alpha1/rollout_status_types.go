// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// RolloutPhase is where a rollout stands.
//
// +kubebuilder:validation:Enum=Pending;Progressing;Soaking;AwaitingApproval;Blocked;Paused;Reverting;Cancelling;Succeeded;Failed;Reverted;Cancelled
type RolloutPhase string

// Phases of a rollout.
const (
	// RolloutPhasePending has not started.
	RolloutPhasePending RolloutPhase = "Pending"
	// RolloutPhaseProgressing moves hosts.
	RolloutPhaseProgressing RolloutPhase = "Progressing"
	// RolloutPhaseSoaking watches a finished wave.
	RolloutPhaseSoaking RolloutPhase = "Soaking"
	// RolloutPhaseAwaitingApproval waits for a name in spec.approvedWaves.
	RolloutPhaseAwaitingApproval RolloutPhase = "AwaitingApproval"
	// RolloutPhaseBlocked cannot go on; the message says what has to happen.
	RolloutPhaseBlocked RolloutPhase = "Blocked"
	// RolloutPhasePaused was paused, by spec.state or by failures.
	RolloutPhasePaused RolloutPhase = "Paused"
	// RolloutPhaseReverting sends hosts back to what they ran before.
	RolloutPhaseReverting RolloutPhase = "Reverting"
	// RolloutPhaseCancelling waits for hosts in flight after a cancellation.
	RolloutPhaseCancelling RolloutPhase = "Cancelling"
	// RolloutPhaseSucceeded has moved every host; deferred ones have their assignment.
	RolloutPhaseSucceeded RolloutPhase = "Succeeded"
	// RolloutPhaseFailed has ended without success.
	RolloutPhaseFailed RolloutPhase = "Failed"
	// RolloutPhaseReverted has sent every host back.
	RolloutPhaseReverted RolloutPhase = "Reverted"
	// RolloutPhaseCancelled was ended by a person.
	RolloutPhaseCancelled RolloutPhase = "Cancelled"
)

// Finished reports whether a rollout in this phase is over for good: it holds no
// host and nothing but its deletion is left.
func (p RolloutPhase) Finished() bool {
	switch p {
	case RolloutPhaseSucceeded, RolloutPhaseFailed, RolloutPhaseReverted, RolloutPhaseCancelled:
		return true
	default:
		return false
	}
}

// RolloutStatus is how far a rollout is.
//
// +kubebuilder:validation:MinProperties=1
type RolloutStatus struct {
	// conditions are Ready, Reconciling and Stalled.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MinItems=0
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// observedGeneration is the generation that this status answers; -1 until the first.
	// +optional
	// +kubebuilder:validation:Minimum=-1
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// phase is where the rollout stands.
	// +optional
	Phase RolloutPhase `json:"phase,omitempty"`

	// message says why it stands there, with numbers.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	Message string `json:"message,omitempty"`

	// releaseUID pins the Release: another one of the same name is not this one.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	ReleaseUID types.UID `json:"releaseUID,omitempty"`

	// attempt is the value of spec.attempt that the counts belong to.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Attempt int32 `json:"attempt,omitempty"`

	// waveProgress is the wave that is open, of how many, such as 2/4.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=32
	WaveProgress string `json:"waveProgress,omitempty"`

	// hostProgress is how many hosts succeeded, of how many, such as 37/120.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=32
	HostProgress string `json:"hostProgress,omitempty"`

	// reachableSince is when the fleet was found reachable again after most of it had gone
	// silent at once. The timeouts of hosts begin anew then.
	// +optional
	ReachableSince metav1.Time `json:"reachableSince,omitempty,omitzero"`

	// hosts counts the targets.
	// +optional
	Hosts *HostCounts `json:"hosts,omitempty"`

	// waves are the waves of the rollout, in their order.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	Waves []WaveStatus `json:"waves,omitempty"`

	// failures are the first 32 hosts that failed, with their reasons.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	Failures []HostFailure `json:"failures,omitempty"`
}

// HostCounts counts the targets of a rollout.
//
// +kubebuilder:validation:MinProperties=0
type HostCounts struct {
	// total is the number of targets that the rollout can move: all but the skipped.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Total int32 `json:"total,omitempty"`

	// assigned is the number of hosts with an assignment of this rollout.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Assigned int32 `json:"assigned,omitempty"`

	// succeeded is the number of hosts that run the release and are healthy.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Succeeded int32 `json:"succeeded,omitempty"`

	// failed is the number of hosts that failed.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Failed int32 `json:"failed"`

	// deferred is the number of hosts that are offline and wait for their return.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Deferred int32 `json:"deferred"`

	// skipped is the number of targets that cannot be moved: without a Host object,
	// without an entry in the release, or kept out by their lifecycle.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Skipped int32 `json:"skipped,omitempty"`

	// unassigned is the number of hosts that are still to be assigned.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Unassigned int32 `json:"unassigned,omitempty"`
}

// WaveStatus is how far a wave is.
type WaveStatus struct {
	// name is the name of the wave.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name,omitempty"`

	// size is the number of hosts that the wave takes, fixed when it started.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Size int32 `json:"size,omitempty"`

	// threshold is the number of hosts that may fail, fixed when the wave started; it
	// follows a change of spec.failureThreshold.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Threshold int32 `json:"threshold,omitempty"`

	// maxUnavailable is the number of hosts that may be in flight or unavailable at
	// once, fixed when the wave started.
	// +optional
	// +kubebuilder:validation:Minimum=0
	MaxUnavailable int32 `json:"maxUnavailable,omitempty"`

	// assigned is the number of hosts of this wave with an assignment.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Assigned int32 `json:"assigned,omitempty"`

	// inFlight is the number of assigned hosts without an outcome.
	// +optional
	// +kubebuilder:validation:Minimum=0
	InFlight int32 `json:"inFlight,omitempty"`

	// succeeded is the number of hosts that run the release and are healthy.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Succeeded int32 `json:"succeeded,omitempty"`

	// failed is the number of hosts that failed in this attempt. It never goes down
	// within an attempt.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Failed int32 `json:"failed,omitempty"`

	// deferred is the number of hosts of this wave that are offline and wait for their
	// return.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Deferred int32 `json:"deferred,omitempty"`

	// skipped is the number of hosts that left the wave after it had assigned them.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Skipped int32 `json:"skipped,omitempty"`

	// readyAt is when everything but the release let the wave start: its release is
	// checked anew then, unless it was within the minute before.
	// +optional
	ReadyAt metav1.Time `json:"readyAt,omitempty,omitzero"`

	// startedAt is when the wave started.
	// +optional
	StartedAt metav1.Time `json:"startedAt,omitempty,omitzero"`

	// finishedAt is when the last of its hosts finished; the soak begins here.
	// +optional
	FinishedAt metav1.Time `json:"finishedAt,omitempty,omitzero"`

	// soakedAt is when the soak was over.
	// +optional
	SoakedAt metav1.Time `json:"soakedAt,omitempty,omitzero"`

	// failedHosts are the first 100 hosts that failed in this attempt.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=100
	FailedHosts []HostName `json:"failedHosts,omitempty"`
}

// HostFailure is why a host failed.
type HostFailure struct {
	// host is the name of the host.
	// +required
	Host HostName `json:"host,omitempty"`

	// wave is the wave that the host was in.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Wave string `json:"wave,omitempty"`

	// reason is a CamelCase word, such as HealthCheckFailed or Timeout.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	Reason string `json:"reason,omitempty"`

	// message says what happened.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	Message string `json:"message,omitempty"`
}
