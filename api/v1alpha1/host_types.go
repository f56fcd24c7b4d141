// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Host is one NixOS or nix-darwin machine. People and Git write its identity and
// how it may be activated, the rollout controller writes what it shall run
// (spec.desired), its agent reports what it runs (status).
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=hosts,scope=Namespaced,shortName=nfh,categories=nixfleet
// +kubebuilder:selectablefield:JSONPath=`.spec.lifecycle`
// +kubebuilder:selectablefield:JSONPath=`.spec.platform`
// +kubebuilder:printcolumn:name="Release",type=string,JSONPath=`.spec.desired.release.name`,description="The release that the host is asked to run."
// +kubebuilder:printcolumn:name="Phase",type=string,JSONPath=`.status.phase`,description="What the agent is doing."
// +kubebuilder:printcolumn:name="Online",type=string,JSONPath=`.status.conditions[?(@.type=="Online")].status`,description="Whether the agent is heard of."
// +kubebuilder:printcolumn:name="Healthy",type=string,JSONPath=`.status.conditions[?(@.type=="Healthy")].status`,description="Whether the health checks pass."
// +kubebuilder:printcolumn:name="UpToDate",type=string,JSONPath=`.status.conditions[?(@.type=="UpToDate")].status`,description="Whether the host runs what is asked."
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Platform",type=string,priority=1,JSONPath=`.spec.platform`
// +kubebuilder:printcolumn:name="Lifecycle",type=string,priority=1,JSONPath=`.spec.lifecycle`
// +kubebuilder:printcolumn:name="Rollout",type=string,priority=1,JSONPath=`.spec.desired.rollout.name`
// +kubebuilder:printcolumn:name="Wave",type=string,priority=1,JSONPath=`.spec.desired.wave`
// +kubebuilder:printcolumn:name="Outcome",type=string,priority=1,JSONPath=`.status.attempt.outcome`
// +kubebuilder:printcolumn:name="Running",type=string,priority=1,JSONPath=`.status.running.storePath`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.size() <= 200",message="a Host's name has at most 200 characters, because the name of its Lease is made from it"
type Host struct {
	metav1.TypeMeta `json:",inline"`

	// metadata is the standard object's metadata.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty,omitzero"`

	// spec is what people and the rollout controller ask of the host.
	// +required
	Spec HostSpec `json:"spec,omitzero"`

	// status is what the agent reports, and whether it is heard of.
	// +optional
	// +kubebuilder:default={"observedGeneration":-1}
	Status HostStatus `json:"status,omitempty,omitzero"`
}

// HostList is a list of Hosts.
//
// +kubebuilder:object:root=true
type HostList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Host `json:"items"`
}

// Lifecycle says which part of its life a host is in.
//
// +kubebuilder:validation:Enum=Pending;Provisioning;Active;Maintenance;Decommissioned
type Lifecycle string

// Lifecycles. Legal moves: Pending to Provisioning, Active, Decommissioned;
// Provisioning to Active, Pending; Active to Maintenance, Decommissioned;
// Maintenance to Active, Decommissioned. Decommissioned is final.
const (
	// LifecyclePending is a host that does not exist yet.
	LifecyclePending Lifecycle = "Pending"
	// LifecycleProvisioning is a host that is being installed; it takes part in
	// rollouts from its first accepted report on.
	LifecycleProvisioning Lifecycle = "Provisioning"
	// LifecycleActive is a host that takes part in rollouts.
	LifecycleActive Lifecycle = "Active"
	// LifecycleMaintenance is a host that people work on; rollouts pass it over.
	LifecycleMaintenance Lifecycle = "Maintenance"
	// LifecycleDecommissioned is a host that is gone for good; its agent is refused.
	LifecycleDecommissioned Lifecycle = "Decommissioned"
)

// HostSpec is what people and the rollout controller ask of a host.
//
// +kubebuilder:validation:XValidation:rule="self.platform == oldSelf.platform",message="platform is immutable: a machine of another platform is another Host"
// +kubebuilder:validation:XValidation:rule="self.lifecycle == oldSelf.lifecycle || (oldSelf.lifecycle == 'Pending' && self.lifecycle in ['Provisioning', 'Active', 'Decommissioned']) || (oldSelf.lifecycle == 'Provisioning' && self.lifecycle in ['Active', 'Pending']) || (oldSelf.lifecycle == 'Active' && self.lifecycle in ['Maintenance', 'Decommissioned']) || (oldSelf.lifecycle == 'Maintenance' && self.lifecycle in ['Active', 'Decommissioned'])",messageExpression="'lifecycle cannot move from ' + oldSelf.lifecycle + ' to ' + self.lifecycle + '; legal moves: Pending to Provisioning, Active or Decommissioned; Provisioning to Active or Pending; Active to Maintenance or Decommissioned; Maintenance to Active or Decommissioned'"
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.desired) || has(self.desired)",message="desired cannot be removed once it is set; to drop an assignment set spec.override with clear: Desired"
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.desired) || !has(self.desired) || self.desired == oldSelf.desired || self.desired.revision > oldSelf.desired.revision",message="desired changes only together with a higher revision"
type HostSpec struct {
	// platform is the Nix system double of the machine, such as x86_64-linux. Immutable.
	// +required
	Platform Platform `json:"platform,omitempty"`

	// lifecycle says which part of its life the host is in. Active hosts take part
	// in rollouts, Provisioning hosts from their first accepted report on, the
	// others never. No controller writes this field.
	// Default: Active.
	// +optional
	// +kubebuilder:default=Active
	Lifecycle Lifecycle `json:"lifecycle,omitempty"`

	// identity holds the keys that the host's agent may present to the gateway.
	// +optional
	Identity HostIdentity `json:"identity,omitzero"`

	// activation says how a closure may be activated on this host.
	// +optional
	// +kubebuilder:default={mode: Switch}
	Activation ActivationPolicy `json:"activation,omitzero"`

	// healthChecks are added to those of the closure. Only checks of the host's own
	// services can stand here; a command, or an address that is not loopback, can
	// stand only in the closure's /etc/nixfleet/health-checks.json, which is signed.
	// Names are unique. At most 16.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	HealthChecks []HealthCheck `json:"healthChecks,omitempty"`

	// override is an operator's request about desired: adopt a store path that was
	// activated by hand, or clear an assignment that will never be met. The rollout
	// controller carries it out once for each id, only while no rollout holds the host.
	// +optional
	Override *DesiredOverride `json:"override,omitempty"`

	// desired is what the host shall run. The rollout controller alone writes it;
	// an admission policy refuses everyone else. It is never kept in Git.
	// +optional
	Desired *Desired `json:"desired,omitempty"`
}

// HostIdentity holds the keys of a host.
//
// +kubebuilder:validation:MinProperties=1
type HostIdentity struct {
	// publicKeys are public keys in OpenSSH format, such as the line in
	// /etc/ssh/ssh_host_ed25519_key.pub. The gateway lets an agent act for this host
	// only if it proves to hold the private half of one of them. Removing a key
	// revokes it at once. At most 8.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=8
	// +kubebuilder:validation:items:MinLength=32
	// +kubebuilder:validation:items:MaxLength=2048
	// +kubebuilder:validation:items:Pattern=`^(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(256|384|521)) AAAA[A-Za-z0-9+/]+={0,2}( .*)?$`
	PublicKeys []string `json:"publicKeys,omitempty"`
}

// ActivationMode says when a closure takes effect.
//
// +kubebuilder:validation:Enum=Switch;Boot
type ActivationMode string

// Activation modes.
const (
	// ActivationModeSwitch activates the closure in the running system.
	ActivationModeSwitch ActivationMode = "Switch"
	// ActivationModeBoot makes the closure take effect at the next boot.
	ActivationModeBoot ActivationMode = "Boot"
)

// RebootPolicy says who reboots a host that waits for a reboot.
//
// +kubebuilder:validation:Enum=Never;Automatic
type RebootPolicy string

// Reboot policies.
const (
	// RebootPolicyNever leaves the reboot to a person.
	RebootPolicyNever RebootPolicy = "Never"
	// RebootPolicyAutomatic lets the agent reboot the host.
	RebootPolicyAutomatic RebootPolicy = "Automatic"
)

// UnprotectedBootPolicy says what to do on a boot loader that cannot try an entry once.
//
// +kubebuilder:validation:Enum=Refuse;Allow
type UnprotectedBootPolicy string

// Policies for boot loaders without one-shot entries.
const (
	// UnprotectedBootRefuse refuses a reboot that could not come back by itself.
	UnprotectedBootRefuse UnprotectedBootPolicy = "Refuse"
	// UnprotectedBootAllow accepts that risk.
	UnprotectedBootAllow UnprotectedBootPolicy = "Allow"
)

// DriftPolicy says what to do when the host runs something else than it was last
// moved to.
//
// +kubebuilder:validation:Enum=Report;Correct
type DriftPolicy string

// Drift policies.
const (
	// DriftReport reports drift and leaves the host alone.
	DriftReport DriftPolicy = "Report"
	// DriftCorrect activates the last closure that succeeded again.
	DriftCorrect DriftPolicy = "Correct"
)

// FailedUnitsPolicy says whether units that newly fail condemn a closure.
//
// +kubebuilder:validation:Enum=RollBack;Ignore
type FailedUnitsPolicy string

// Policies for units that fail after an activation.
const (
	// FailedUnitsRollBack rolls back when a unit fails that did not fail before.
	FailedUnitsRollBack FailedUnitsPolicy = "RollBack"
	// FailedUnitsIgnore leaves the decision to the health checks alone.
	FailedUnitsIgnore FailedUnitsPolicy = "Ignore"
)

// ActivationPolicy says how a closure may be activated on a host.
//
// +kubebuilder:validation:MinProperties=1
type ActivationPolicy struct {
	// mode is Switch (activate in the running system) or Boot (at the next boot).
	// Default: Switch.
	// +optional
	// +kubebuilder:default=Switch
	Mode ActivationMode `json:"mode,omitempty"`

	// reboot says who reboots a host that waits for a reboot: Never (a person does)
	// or Automatic. Default: Never.
	// +optional
	// +kubebuilder:default=Never
	Reboot RebootPolicy `json:"reboot,omitempty"`

	// unprotectedBoot says whether mode Boot may be used with a boot loader that
	// cannot return to the previous system by itself. Default: Refuse.
	// +optional
	// +kubebuilder:default=Refuse
	UnprotectedBoot UnprotectedBootPolicy `json:"unprotectedBoot,omitempty"`

	// confirmTimeoutSeconds is how long after the health checks the new system has
	// to report over a fresh connection before the host rolls back, in seconds.
	// Default: 120. Example: 300 for a host behind a slow VPN.
	// +optional
	// +kubebuilder:default=120
	// +kubebuilder:validation:Minimum=10
	// +kubebuilder:validation:Maximum=3600
	ConfirmTimeoutSeconds int32 `json:"confirmTimeoutSeconds,omitempty"`

	// activationTimeoutSeconds is how long the closure's activation may take before
	// it is stopped and rolled back, in seconds. Default: 600.
	// +optional
	// +kubebuilder:default=600
	// +kubebuilder:validation:Minimum=10
	// +kubebuilder:validation:Maximum=7200
	ActivationTimeoutSeconds int32 `json:"activationTimeoutSeconds,omitempty"`

	// drift says what to do when somebody activates something else by hand: Report
	// or Correct. Default: Report.
	// +optional
	// +kubebuilder:default=Report
	Drift DriftPolicy `json:"drift,omitempty"`

	// failedUnits says whether units that newly fail condemn a closure: RollBack or
	// Ignore. Default: RollBack.
	// +optional
	// +kubebuilder:default=RollBack
	FailedUnits FailedUnitsPolicy `json:"failedUnits,omitempty"`
}

// OverrideClear is what an override clears.
//
// +kubebuilder:validation:Enum=Desired
type OverrideClear string

// OverrideClearDesired drops the assignment in spec.desired.
const OverrideClearDesired OverrideClear = "Desired"

// DesiredOverride is an operator's request about spec.desired.
//
// +kubebuilder:validation:XValidation:rule="has(self.storePath) != has(self.clear)",message="exactly one of storePath and clear is set"
type DesiredOverride struct {
	// id tells requests apart: a request is carried out once for each id.
	// Example: 2026-11-23-hotfix.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	ID string `json:"id,omitempty"`

	// storePath is a system closure that was activated by hand and shall count as
	// what the host is meant to run.
	// +optional
	StorePath StorePath `json:"storePath,omitempty"`

	// clear drops the current assignment: nothing is asked of the host any more.
	// +optional
	Clear OverrideClear `json:"clear,omitempty"`
}

// Intent says what an assignment asks of a host.
//
// +kubebuilder:validation:Enum=Deploy;Revert;None
type Intent string

// Intents.
const (
	// IntentDeploy asks the host to run storePath, of the rollout's release.
	IntentDeploy Intent = "Deploy"
	// IntentRevert asks the host to run storePath, which it ran before.
	IntentRevert Intent = "Revert"
	// IntentNone asks nothing: the host stays on what it runs.
	IntentNone Intent = "None"
)

// Desired is one assignment of the rollout controller to a host.
//
// +kubebuilder:validation:XValidation:rule="self.intent == 'None' || has(self.storePath)",message="storePath is required unless intent is None"
type Desired struct {
	// revision counts the assignments of this Host object and only grows. The next
	// one is max(desired.revision, status.observedRevision, status.attempt.revision) + 1.
	// +required
	// +kubebuilder:validation:Minimum=1
	Revision int64 `json:"revision,omitempty"`

	// intent is what is asked: Deploy, Revert or None.
	// +required
	Intent Intent `json:"intent,omitempty"`

	// storePath is the system closure that the host shall run.
	// +optional
	StorePath StorePath `json:"storePath,omitempty"`

	// previousStorePath is what the host ran when this rollout first assigned it. A
	// revert goes back to it. It is carried over while rollout.uid stays the same.
	// +optional
	PreviousStorePath StorePath `json:"previousStorePath,omitempty"`

	// previousCaches are the caches of the assignment before this rollout's first,
	// from which previousStorePath can be fetched.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	PreviousCaches []CacheURL `json:"previousCaches,omitempty"`

	// release is the release that storePath comes from.
	// +optional
	Release *ObjectReference `json:"release,omitempty"`

	// rollout is the rollout that made this assignment.
	// +optional
	Rollout *ObjectReference `json:"rollout,omitempty"`

	// attempt is the attempt of the rollout that this assignment belongs to, from 1.
	// +optional
	// +kubebuilder:validation:Minimum=1
	Attempt int32 `json:"attempt,omitempty"`

	// wave is the name of the rollout's wave that the host is in.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Wave string `json:"wave,omitempty"`

	// caches are the binary caches that the closure can be fetched from, best first.
	// The agent trusts none of them: signatures are checked with its own keys.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	Caches []CacheURL `json:"caches,omitempty"`

	// assignedTime is when this assignment was made, by the controller's clock.
	// +required
	AssignedTime metav1.Time `json:"assignedTime,omitempty,omitzero"`

	// overrideID is the id of the override that made this assignment.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	OverrideID string `json:"overrideID,omitempty"`
}
