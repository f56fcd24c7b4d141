// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Release names one system closure for each host. Whoever builds the fleet makes
// it: a build machine or CI, never the cluster.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=releases,scope=Namespaced,shortName=nfrel,categories=nixfleet
// +kubebuilder:printcolumn:name="Hosts",type=integer,JSONPath=`.status.closures.hosts`,description="Number of hosts in the release."
// +kubebuilder:printcolumn:name="Verified",type=string,JSONPath=`.status.conditions[?(@.type=="Verified")].status`,description="Whether every closure can be fetched and is signed."
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Verified")].reason`
// +kubebuilder:printcolumn:name="Revision",type=string,JSONPath=`.spec.source.revision`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="InUse",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="InUse")].status`
// +kubebuilder:printcolumn:name="Download",type=integer,priority=1,JSONPath=`.status.downloadBytes`,description="Bytes to download for all closures."
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Verified")].message`
type Release struct {
	metav1.TypeMeta `json:",inline"`

	// metadata is the standard object's metadata.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty,omitzero"`

	// The rule compares the order of the caches by itself: == does not see the order of
	// a list with keys.

	// spec is what the release consists of. Immutable: a changed release is another one.
	// +required
	// +kubebuilder:validation:XValidation:rule="self == oldSelf && self.caches.map(c, c.url) == oldSelf.caches.map(c, c.url)",message="a Release is immutable: create another one under a new name"
	Spec ReleaseSpec `json:"spec,omitzero"`

	// status is what the release controller found out.
	// +optional
	// +kubebuilder:default={"observedGeneration":-1}
	Status ReleaseStatus `json:"status,omitempty,omitzero"`
}

// ReleaseList is a list of Releases.
//
// +kubebuilder:object:root=true
type ReleaseList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Release `json:"items"`
}

// VerificationPolicy says whether a release is checked before hosts are moved to it.
//
// +kubebuilder:validation:Enum=Required;Skip
type VerificationPolicy string

// Verification policies.
const (
	// VerificationRequired holds rollouts until the release is Verified.
	VerificationRequired VerificationPolicy = "Required"
	// VerificationSkip lets rollouts go on unchecked. The agents still check.
	VerificationSkip VerificationPolicy = "Skip"
)

// ReleaseSpec is what a release consists of.
type ReleaseSpec struct {
	// source says what the closures were built from.
	// +optional
	Source *ReleaseSource `json:"source,omitempty"`

	// caches are the binary caches that hold the closures, best first. At most 16.
	// +required
	// +listType=map
	// +listMapKey=url
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	Caches []BinaryCache `json:"caches,omitempty"`

	// verification is Required (rollouts wait until the release is Verified) or Skip.
	// Default: Required.
	// +optional
	// +kubebuilder:default=Required
	Verification VerificationPolicy `json:"verification,omitempty"`

	// hosts maps the name of a Host to the toplevel of its system. At most 5,000; a
	// larger fleet uses several releases.
	// Example: web-01: /nix/store/...-nixos-system-web-01-26.05.
	// +required
	// +mapType=atomic
	// +kubebuilder:validation:MinProperties=1
	// +kubebuilder:validation:MaxProperties=5000
	Hosts map[string]StorePath `json:"hosts,omitempty"`
}

// ReleaseSource says what a release was built from.
//
// +kubebuilder:validation:MinProperties=1
type ReleaseSource struct {
	// flake is the flake reference that was built, such as github:example/fleet.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	Flake string `json:"flake,omitempty"`

	// revision is the revision of the flake, such as a Git commit.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=255
	Revision string `json:"revision,omitempty"`

	// lastModified is when that revision was made. A rollout to a release that is
	// older than what a host runs waits, unless its olderRelease is Allow.
	// +optional
	LastModified metav1.Time `json:"lastModified,omitempty,omitzero"`
}

// BinaryCache is a binary cache and the keys that its paths are signed with.
type BinaryCache struct {
	// url is where the cache is served, without query and fragment.
	// Example: https://cache.example.org.
	// +required
	URL CacheURL `json:"url,omitempty"`

	// publicKeys are the keys whose signatures make a path of this release valid. The
	// agents use keys of their own instead. At most 16.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	PublicKeys []NixPublicKey `json:"publicKeys,omitempty"`
}

// ReleaseStatus is what the release controller found out.
//
// +kubebuilder:validation:MinProperties=1
type ReleaseStatus struct {
	// conditions are Ready, Reconciling, Stalled, Verified and InUse.
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

	// closures counts what the release consists of and what was found of it.
	// +optional
	Closures *ClosureCounts `json:"closures,omitempty"`

	// downloadBytes is the size of all paths as the caches serve them, in bytes; each
	// path counts once. Paths whose cache does not tell count with their unpacked size.
	// +optional
	// +kubebuilder:validation:Minimum=0
	DownloadBytes int64 `json:"downloadBytes,omitempty"`

	// unpackedBytes is the size of all paths in a store, in bytes.
	// +optional
	// +kubebuilder:validation:Minimum=0
	UnpackedBytes int64 `json:"unpackedBytes,omitempty"`

	// verifiedAt is when the last check ended that could ask every cache it needed.
	// +optional
	VerifiedAt metav1.Time `json:"verifiedAt,omitempty,omitzero"`

	// offenders are the first 20 paths that are missing, untrusted or invalid.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=20
	Offenders []Offender `json:"offenders,omitempty"`
}

// ClosureCounts counts the parts of a release.
//
// +kubebuilder:validation:MinProperties=0
type ClosureCounts struct {
	// hosts is the number of hosts in the release.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Hosts int32 `json:"hosts,omitempty"`

	// toplevels is the number of different systems.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Toplevels int32 `json:"toplevels,omitempty"`

	// verified is the number of systems that can be fetched whole and are signed.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Verified int32 `json:"verified,omitempty"`

	// paths is the number of different store paths of all systems.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Paths int64 `json:"paths,omitempty"`
}

// Offender is a path that keeps a release from being Verified.
type Offender struct {
	// storePath is the path.
	// +required
	StorePath StorePath `json:"storePath,omitempty"`

	// reason is MissingPaths, UntrustedSignature, Invalid or CacheUnreachable.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	Reason string `json:"reason,omitempty"`

	// host is a host whose system contains the path.
	// +optional
	Host HostName `json:"host,omitempty"`

	// message says what is wrong with it.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	Message string `json:"message,omitempty"`
}
