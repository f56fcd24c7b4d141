// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Rollout moves hosts to a Release, wave by wave.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=rollouts,scope=Namespaced,shortName=nfro,categories=nixfleet
// +kubebuilder:selectablefield:JSONPath=`.spec.release`
// +kubebuilder:printcolumn:name="Release",type=string,JSONPath=`.spec.release`
// +kubebuilder:printcolumn:name="Phase",type=string,JSONPath=`.status.phase`
// +kubebuilder:printcolumn:name="Wave",type=string,JSONPath=`.status.waveProgress`,description="The wave that is open, of how many."
// +kubebuilder:printcolumn:name="Updated",type=string,JSONPath=`.status.hostProgress`,description="Hosts that succeeded, of how many."
// +kubebuilder:printcolumn:name="Failed",type=integer,JSONPath=`.status.hosts.failed`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Deferred",type=integer,priority=1,JSONPath=`.status.hosts.deferred`
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.message`
type Rollout struct {
	metav1.TypeMeta `json:",inline"`

	// metadata is the standard object's metadata.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty,omitzero"`

	// spec is which hosts move where, and how. Immutable but for state, attempt,
	// approvedWaves and failureThreshold.
	// +required
	Spec RolloutSpec `json:"spec,omitzero"`

	// status is how far the rollout is.
	// +optional
	// +kubebuilder:default={"observedGeneration":-1}
	Status RolloutStatus `json:"status,omitempty,omitzero"`
}

// RolloutList is a list of Rollouts.
//
// +kubebuilder:object:root=true
type RolloutList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Rollout `json:"items"`
}

// RolloutState is what an operator wants of a rollout.
//
// +kubebuilder:validation:Enum=Running;Paused;Cancelled
type RolloutState string

// States of a rollout.
const (
	// RolloutStateRunning lets the rollout go on.
	RolloutStateRunning RolloutState = "Running"
	// RolloutStatePaused starts nothing new.
	RolloutStatePaused RolloutState = "Paused"
	// RolloutStateCancelled ends the rollout for good.
	RolloutStateCancelled RolloutState = "Cancelled"
)

// OnFailure is what a rollout does when too many hosts failed.
//
// +kubebuilder:validation:Enum=Pause;Revert
type OnFailure string

// What a rollout does when too many hosts failed.
const (
	// OnFailurePause stops and waits for a person.
	OnFailurePause OnFailure = "Pause"
	// OnFailureRevert sends each host that the rollout assigned back to what it ran before.
	OnFailureRevert OnFailure = "Revert"
)

// OfflinePolicy is what a rollout does about hosts that are offline.
//
// +kubebuilder:validation:Enum=Defer;Wait
type OfflinePolicy string

// What a rollout does about hosts that are offline.
const (
	// OfflinePolicyDefer goes on without them and moves them when they return.
	OfflinePolicyDefer OfflinePolicy = "Defer"
	// OfflinePolicyWait holds their wave until they return.
	OfflinePolicyWait OfflinePolicy = "Wait"
)

// OlderReleasePolicy is what a rollout does about hosts that run something newer.
//
// +kubebuilder:validation:Enum=Block;Allow
type OlderReleasePolicy string

// What a rollout does about hosts that run something newer than its release.
const (
	// OlderReleaseBlock waits.
	OlderReleaseBlock OlderReleasePolicy = "Block"
	// OlderReleaseAllow moves them back: a rollback.
	OlderReleaseAllow OlderReleasePolicy = "Allow"
)

// The rule on strategy compares the order of the waves by itself: == does not see the
// order of a list with keys.

// RolloutSpec is which hosts move where, and how.
//
// +kubebuilder:validation:XValidation:rule="has(self.selector) || has(self.hosts)",message="a rollout needs targets: set selector, hosts or both; selector: {} means every host of the namespace"
// +kubebuilder:validation:XValidation:rule="self.release == oldSelf.release",message="release is immutable: create another Rollout"
// +kubebuilder:validation:XValidation:rule="has(self.selector) == has(oldSelf.selector) && (!has(self.selector) || self.selector == oldSelf.selector)",message="selector is immutable: create another Rollout"
// +kubebuilder:validation:XValidation:rule="has(self.hosts) == has(oldSelf.hosts) && (!has(self.hosts) || self.hosts == oldSelf.hosts)",message="hosts is immutable: create another Rollout"
// +kubebuilder:validation:XValidation:rule="self.strategy == oldSelf.strategy && (!has(self.strategy.waves) || self.strategy.waves.map(w, w.name) == oldSelf.strategy.waves.map(w, w.name))",message="strategy is immutable: create another Rollout"
// +kubebuilder:validation:XValidation:rule="self.onFailure == oldSelf.onFailure",message="onFailure is immutable: create another Rollout"
// +kubebuilder:validation:XValidation:rule="self.hostTimeoutSeconds == oldSelf.hostTimeoutSeconds",message="hostTimeoutSeconds is immutable: create another Rollout"
// +kubebuilder:validation:XValidation:rule="self.offlinePolicy == oldSelf.offlinePolicy",message="offlinePolicy is immutable: create another Rollout"
// +kubebuilder:validation:XValidation:rule="self.olderRelease == oldSelf.olderRelease",message="olderRelease is immutable: create another Rollout"
// +kubebuilder:validation:XValidation:rule="oldSelf.state != 'Cancelled' || self.state == 'Cancelled'",message="a cancelled rollout stays cancelled: create another Rollout"
// +kubebuilder:validation:XValidation:rule="self.attempt >= oldSelf.attempt",message="attempt only grows: raise it to go on after failures"
// +kubebuilder:validation:XValidation:rule="!has(self.approvedWaves) || self.approvedWaves.all(a, has(self.strategy.waves) && self.strategy.waves.exists(w, w.name == a))",messageExpression="'approvedWaves (' + self.approvedWaves.join(', ') + ') names a wave that strategy.waves does not have'"
type RolloutSpec struct {
	// release is the name of the Release that the hosts move to. Immutable.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Release string `json:"release,omitempty"`

	// selector selects target hosts by their labels; {} selects every host of the
	// namespace. Hosts that match later join later waves. Immutable.
	// +optional
	Selector *HostSelector `json:"selector,omitempty"`

	// hosts are further targets by name. A name without a Host is skipped and counted.
	// At most 5,000. Immutable.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=5000
	Hosts []HostName `json:"hosts,omitempty"`

	// strategy is the order in which hosts move. Default: all at once. Immutable.
	// +optional
	// +kubebuilder:default={type: AllAtOnce}
	Strategy RolloutStrategy `json:"strategy,omitzero"`

	// approvedWaves are the names of the waves approved so far, for waves whose
	// approval is Required.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=63
	ApprovedWaves []string `json:"approvedWaves,omitempty"`

	// failureThreshold is how many hosts of a wave may fail; one more stops the
	// rollout. A number, or a percentage of the wave, rounded down.
	// Default: 0. Example: 10% of a wave of 25 hosts lets 2 fail.
	// +optional
	// +kubebuilder:default=0
	// +kubebuilder:validation:XIntOrString
	// +kubebuilder:validation:MaxLength=4
	// +kubebuilder:validation:XValidation:rule="type(self) == int ? self >= 0 && self <= 100000 : string(self).matches('^(100|[1-9]?[0-9])%$')",message="failureThreshold is a number from 0 on, or a percentage from 0% to 100%"
	FailureThreshold *intstr.IntOrString `json:"failureThreshold,omitempty"`

	// onFailure is what happens when more hosts failed than failureThreshold: Pause or
	// Revert. Default: Pause. Immutable.
	// +optional
	// +kubebuilder:default=Pause
	OnFailure OnFailure `json:"onFailure,omitempty"`

	// hostTimeoutSeconds is how long a host may take, in seconds, from its assignment
	// or its last return to Online, whichever is later. Waiting for a reboot does not
	// count. Default: 1800. Immutable.
	// +optional
	// +kubebuilder:default=1800
	// +kubebuilder:validation:Minimum=10
	// +kubebuilder:validation:Maximum=604800
	HostTimeoutSeconds int32 `json:"hostTimeoutSeconds,omitempty"`

	// offlinePolicy is Defer (go on without hosts that are offline and move them when
	// they return) or Wait (hold their wave). Default: Defer. Immutable.
	// +optional
	// +kubebuilder:default=Defer
	OfflinePolicy OfflinePolicy `json:"offlinePolicy,omitempty"`

	// olderRelease is Block (wait if the release is older than what a target runs) or
	// Allow (a rollback). Default: Block. Immutable.
	// +optional
	// +kubebuilder:default=Block
	OlderRelease OlderReleasePolicy `json:"olderRelease,omitempty"`

	// state is Running, Paused or Cancelled. Cancelled is final. Default: Running.
	// +optional
	// +kubebuilder:default=Running
	State RolloutState `json:"state,omitempty"`

	// attempt counts the attempts of the rollout. Raise it to try the hosts again that
	// failed, and go on. Default: 1.
	// +optional
	// +kubebuilder:default=1
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000000
	Attempt int32 `json:"attempt,omitempty"`
}

// StrategyType is the kind of a strategy.
//
// +kubebuilder:validation:Enum=AllAtOnce;Canary;Staged
type StrategyType string

// Kinds of strategies.
const (
	// StrategyAllAtOnce moves all hosts in one wave.
	StrategyAllAtOnce StrategyType = "AllAtOnce"
	// StrategyCanary moves one host, then the rest.
	StrategyCanary StrategyType = "Canary"
	// StrategyStaged moves hosts in the waves of the spec.
	StrategyStaged StrategyType = "Staged"
)

// RolloutStrategy is the order in which hosts move.
//
// +kubebuilder:validation:XValidation:rule="has(self.waves) == (self.type == 'Staged')",message="waves is set if and only if type is Staged"
// +kubebuilder:validation:MinProperties=1
type RolloutStrategy struct {
	// type is AllAtOnce, Canary (one host, then the rest) or Staged (the waves below).
	// Default: AllAtOnce.
	// +optional
	// +kubebuilder:default=AllAtOnce
	Type StrategyType `json:"type,omitempty"`

	// waves are the waves of a Staged rollout, in their order. The last one has neither
	// selector nor size: it takes every host that is left. Names are unique. At most 32.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:XValidation:rule="size(self) == 0 || (!has(self[size(self) - 1].selector) && !has(self[size(self) - 1].size))",message="the last wave has neither selector nor size: it takes every host that is left"
	Waves []RolloutWave `json:"waves,omitempty"`
}

// WaveApproval says whether a wave waits for a person.
//
// +kubebuilder:validation:Enum=Automatic;Required
type WaveApproval string

// Wave approvals.
const (
	// WaveApprovalAutomatic starts the wave when the one before has soaked.
	WaveApprovalAutomatic WaveApproval = "Automatic"
	// WaveApprovalRequired starts it only when spec.approvedWaves names it.
	WaveApprovalRequired WaveApproval = "Required"
)

// RolloutWave is a group of hosts that move together.
type RolloutWave struct {
	// name tells the waves of a rollout apart. Example: canary.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	Name string `json:"name,omitempty"`

	// selector narrows the wave to targets with these labels. Default: all targets that
	// no earlier wave took.
	// +optional
	Selector *HostSelector `json:"selector,omitempty"`

	// size is how many of the candidates the wave takes: a number, or a percentage of
	// the candidates, rounded up, at least 1. Default: all of them.
	// Example: 10% of 25 candidates takes 3.
	// +optional
	// +kubebuilder:validation:XIntOrString
	// +kubebuilder:validation:MaxLength=4
	// +kubebuilder:validation:XValidation:rule="type(self) == int ? self >= 1 && self <= 100000 : string(self).matches('^(100|[1-9][0-9]?)%$')",message="size is a number from 1 on, or a percentage from 1% to 100%"
	Size *intstr.IntOrString `json:"size,omitempty"`

	// maxUnavailable is how many hosts of the wave may be in flight or unavailable at
	// once: a number, or a percentage of the wave's candidates, rounded up, at least 1.
	// Default: no limit. Example: 2.
	// +optional
	// +kubebuilder:validation:XIntOrString
	// +kubebuilder:validation:MaxLength=4
	// +kubebuilder:validation:XValidation:rule="type(self) == int ? self >= 1 && self <= 100000 : string(self).matches('^(100|[1-9][0-9]?)%$')",message="maxUnavailable is a number from 1 on, or a percentage from 1% to 100%"
	MaxUnavailable *intstr.IntOrString `json:"maxUnavailable,omitempty"`

	// soakSeconds is how long the hosts of the wave must stay healthy after the last of
	// them has finished, before the next wave starts, in seconds. Default: 0.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=2592000
	SoakSeconds int32 `json:"soakSeconds,omitempty"`

	// approval is Automatic or Required (the wave starts only when approvedWaves names
	// it). Default: Automatic.
	// +optional
	// +kubebuilder:default=Automatic
	Approval WaveApproval `json:"approval,omitempty"`
}
