// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// HostPhase is the state of the agent's state machine.
//
// +kubebuilder:validation:Enum=Idle;Fetching;Activating;Verifying;Confirming;Committing;AwaitingReboot;RollingBack
type HostPhase string

// Phases of a host.
const (
	// HostPhaseIdle is at rest: nothing is asked that is not done or refused.
	HostPhaseIdle HostPhase = "Idle"
	// HostPhaseFetching brings the closure into the store and checks it.
	HostPhaseFetching HostPhase = "Fetching"
	// HostPhaseActivating runs the closure's switch-to-configuration.
	HostPhaseActivating HostPhase = "Activating"
	// HostPhaseVerifying runs the health checks.
	HostPhaseVerifying HostPhase = "Verifying"
	// HostPhaseConfirming reports from the new system over a fresh connection.
	HostPhaseConfirming HostPhase = "Confirming"
	// HostPhaseCommitting sets the profile and the boot default.
	HostPhaseCommitting HostPhase = "Committing"
	// HostPhaseAwaitingReboot waits for a reboot into the new system.
	HostPhaseAwaitingReboot HostPhase = "AwaitingReboot"
	// HostPhaseRollingBack goes back to what ran before.
	HostPhaseRollingBack HostPhase = "RollingBack"
)

// AttemptOutcome is how an attempt ended.
//
// +kubebuilder:validation:Enum=Succeeded;RolledBack;Failed;Refused
type AttemptOutcome string

// Outcomes of an attempt.
const (
	// AttemptSucceeded means that the host runs the closure, healthy and committed.
	AttemptSucceeded AttemptOutcome = "Succeeded"
	// AttemptRolledBack means that the closure was activated, found wanting, and
	// that the host runs what it ran before.
	AttemptRolledBack AttemptOutcome = "RolledBack"
	// AttemptFailed means that the attempt ended without success and that the host
	// may not be back on what it ran before; the message says where it is.
	AttemptFailed AttemptOutcome = "Failed"
	// AttemptRefused means that the closure was never activated.
	AttemptRefused AttemptOutcome = "Refused"
)

// HostStatus is what the agent of a host reports. The agent owns all of it but the
// condition Online, which is the host controller's.
//
// +kubebuilder:validation:MinProperties=1
type HostStatus struct {
	// conditions are Ready, Reconciling, Stalled, Healthy, UpToDate, RebootRequired,
	// Drifted and DiskPressure of the agent, and Online of the host controller.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MinItems=0
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// observedGeneration is the generation of the Host that this report answers; -1
	// until the first report.
	// +optional
	// +kubebuilder:validation:Minimum=-1
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// observedRevision is the revision of spec.desired that this report answers.
	// +optional
	// +kubebuilder:validation:Minimum=0
	ObservedRevision int64 `json:"observedRevision,omitempty"`

	// phase is the state of the agent.
	// +optional
	Phase HostPhase `json:"phase,omitempty"`

	// running is the system that is activated, as /run/current-system says.
	// +optional
	Running *SystemGeneration `json:"running,omitempty"`

	// booted is the system that was booted, as /run/booted-system says.
	// +optional
	Booted *SystemGeneration `json:"booted,omitempty"`

	// profile is the system that the system profile names, which is the boot default.
	// +optional
	Profile *SystemGeneration `json:"profile,omitempty"`

	// fetch is how far the fetch of the closure is; absent when nothing is fetched.
	// +optional
	Fetch *FetchProgress `json:"fetch,omitempty"`

	// attempt is the last attempt to move the host, in progress or ended.
	// +optional
	Attempt *HostAttempt `json:"attempt,omitempty"`

	// history holds the last 10 ended attempts, newest first.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=10
	History []HostAttempt `json:"history,omitempty"`

	// healthChecks are the last results of the health checks. At most 64.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	HealthChecks []HealthCheckResult `json:"healthChecks,omitempty"`

	// nodeInfo describes the machine and its agent.
	// +optional
	NodeInfo *NodeInfo `json:"nodeInfo,omitempty"`
}

// SystemGeneration is a system closure and where it stands on the host.
type SystemGeneration struct {
	// storePath is the toplevel of the system. The one identity of a system.
	// +required
	StorePath StorePath `json:"storePath,omitempty"`

	// specialisation is the name of the specialisation that is active, if any.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=255
	Specialisation string `json:"specialisation,omitempty"`

	// generation is the number of the profile generation that names storePath, if any.
	// +optional
	// +kubebuilder:validation:Minimum=1
	Generation int64 `json:"generation,omitempty"`

	// label is the system's own name for its version, such as 26.05.20261101.abcdef0.
	// It is not unique.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=255
	Label string `json:"label,omitempty"`

	// configurationRevision is the revision of the configuration that the system was
	// built from, if the system tells.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=255
	ConfigurationRevision string `json:"configurationRevision,omitempty"`
}

// FetchProgress is how far the fetch of a closure is.
//
// +kubebuilder:validation:MinProperties=0
type FetchProgress struct {
	// pathsDone is the number of store paths fetched.
	// +optional
	// +kubebuilder:validation:Minimum=0
	PathsDone int64 `json:"pathsDone,omitempty"`

	// pathsTotal is the number of store paths to fetch.
	// +optional
	// +kubebuilder:validation:Minimum=0
	PathsTotal int64 `json:"pathsTotal,omitempty"`

	// bytesDone is the number of bytes fetched.
	// +optional
	// +kubebuilder:validation:Minimum=0
	BytesDone int64 `json:"bytesDone,omitempty"`

	// bytesTotal is the number of bytes to fetch.
	// +optional
	// +kubebuilder:validation:Minimum=0
	BytesTotal int64 `json:"bytesTotal,omitempty"`
}

// HostAttempt is one attempt to move a host to a closure.
type HostAttempt struct {
	// revision is the revision of spec.desired that the attempt carries out.
	// +required
	// +kubebuilder:validation:Minimum=1
	Revision int64 `json:"revision,omitempty"`

	// storePath is the closure of the attempt.
	// +required
	StorePath StorePath `json:"storePath,omitempty"`

	// rolloutUID is the UID of the rollout that asked for it.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	RolloutUID types.UID `json:"rolloutUID,omitempty"`

	// outcome is how the attempt ended; absent while it is in progress.
	// +optional
	Outcome AttemptOutcome `json:"outcome,omitempty"`

	// reason is a CamelCase word for the outcome, such as HealthCheckFailed.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	Reason string `json:"reason,omitempty"`

	// message says what happened, in a sentence.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	Message string `json:"message,omitempty"`

	// startedAt is when the agent began, by the host's clock.
	// +optional
	StartedAt metav1.Time `json:"startedAt,omitempty,omitzero"`

	// finishedAt is when the attempt ended, by the host's clock.
	// +optional
	FinishedAt metav1.Time `json:"finishedAt,omitempty,omitzero"`

	// phases says how long each phase took, in the order in which they were entered.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=8
	Phases []PhaseDuration `json:"phases,omitempty"`
}

// PhaseDuration is how long a phase of an attempt took.
type PhaseDuration struct {
	// phase is the phase.
	// +required
	Phase HostPhase `json:"phase,omitempty"`

	// seconds is how long the host was in the phase, in seconds, rounded up.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Seconds int64 `json:"seconds,omitempty"`
}

// HealthState is the result of a health check.
//
// +kubebuilder:validation:Enum=Healthy;Unhealthy;Unknown
type HealthState string

// Results of health checks.
const (
	// HealthStateHealthy means that the last try passed.
	HealthStateHealthy HealthState = "Healthy"
	// HealthStateUnhealthy means that the last try failed.
	HealthStateUnhealthy HealthState = "Unhealthy"
	// HealthStateUnknown means that the check has not run yet. It is not healthy.
	HealthStateUnknown HealthState = "Unknown"
)

// HealthCheckResult is the last result of a health check.
type HealthCheckResult struct {
	// name is the name of the check.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name,omitempty"`

	// state is Healthy, Unhealthy or Unknown.
	// +required
	State HealthState `json:"state,omitempty"`

	// message says why, if the check does not pass.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	Message string `json:"message,omitempty"`

	// revision is the revision of spec.desired under which the sample was taken; 0
	// before the first.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Revision int64 `json:"revision,omitempty"`

	// storePath is the system that ran when the sample was taken.
	// +optional
	StorePath StorePath `json:"storePath,omitempty"`

	// since is when the check entered this state, by the host's clock.
	// +optional
	Since metav1.Time `json:"since,omitempty,omitzero"`
}

// BootProtection says whether a boot loader can try an entry once.
//
// +kubebuilder:validation:Enum=OneShot;None
type BootProtection string

// Boot protections.
const (
	// BootProtectionOneShot can boot an entry once and return to the default.
	BootProtectionOneShot BootProtection = "OneShot"
	// BootProtectionNone cannot.
	BootProtectionNone BootProtection = "None"
)

// NodeInfo describes a machine and its agent.
//
// +kubebuilder:validation:MinProperties=0
type NodeInfo struct {
	// agentVersion is the version of the agent.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	AgentVersion string `json:"agentVersion,omitempty"`

	// nixVersion is the version of Nix.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	NixVersion string `json:"nixVersion,omitempty"`

	// kernelVersion is the version of the kernel that runs.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	KernelVersion string `json:"kernelVersion,omitempty"`

	// bootID tells boots of the machine apart.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	BootID string `json:"bootID,omitempty"`

	// bootLoader is the boot loader, such as systemd-boot.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	BootLoader string `json:"bootLoader,omitempty"`

	// bootProtection says whether the boot loader can try an entry once.
	// +optional
	BootProtection BootProtection `json:"bootProtection,omitempty"`

	// tags are the host's own tags, from the agent's configuration. At most 32.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=63
	Tags []string `json:"tags,omitempty"`
}
