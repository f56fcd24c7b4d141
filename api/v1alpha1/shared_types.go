// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package v1alpha1

import "k8s.io/apimachinery/pkg/types"

// Field owners used with server-side apply. They are part of the API: a renamed
// owner would leave fields behind that nobody removes.
const (
	// FieldOwnerRollout owns Host.spec.desired and Rollout.status.
	FieldOwnerRollout = "nixfleet-rollout"
	// FieldOwnerHost owns the Online condition of Hosts and their Leases.
	FieldOwnerHost = "nixfleet-host"
	// FieldOwnerRelease owns Release.status.
	FieldOwnerRelease = "nixfleet-release"
	// FieldOwnerGateway owns the keys that the gateway pins at enrollment.
	FieldOwnerGateway = "nixfleet-gateway"
	// FieldOwnerAgent owns Host.status but for the Online condition.
	FieldOwnerAgent = "nixfleet-agent"
)

// Finalizers.
const (
	// FinalizerInUse is on a Release while an unfinished Rollout uses it.
	FinalizerInUse = "nixfleet.io/in-use"
	// FinalizerHosts is on a Rollout until the hosts that it assigned have
	// finished or timed out, so that a deletion leaves no host in mid-flight.
	FinalizerHosts = "nixfleet.io/hosts"
)

// LeasePrefix begins the name of the Lease of a host: prefix and host name.
const LeasePrefix = "nixfleet-host-"

// LeaseName returns the name of the Lease that the agent of a host renews.
func LeaseName(host string) string { return LeasePrefix + host }

// Platform is a Nix system double.
//
// +kubebuilder:validation:Enum=x86_64-linux;aarch64-linux;x86_64-darwin;aarch64-darwin
type Platform string

// Platforms that agents exist for.
const (
	PlatformX8664Linux    Platform = "x86_64-linux"
	PlatformAarch64Linux  Platform = "aarch64-linux"
	PlatformX8664Darwin   Platform = "x86_64-darwin"
	PlatformAarch64Darwin Platform = "aarch64-darwin"
)

// StorePath is the path of an object in the Nix store, without a subpath, such as
// /nix/store/0c0mmgsdhjxf8x4sjzzqvxw1hxsyqbnd-nixos-system-web-01-26.05.
// The 32 characters of the digest are of Nix's base-32 alphabet, which has no
// e, o, t and u.
//
// +kubebuilder:validation:MinLength=45
// +kubebuilder:validation:MaxLength=255
// +kubebuilder:validation:Pattern=`^/nix/store/[0-9a-df-np-sv-z]{32}-[A-Za-z0-9+._?=-]+$`
type StorePath string

// CacheURL is the URL of a binary cache, such as https://cache.example.org.
// A query or a fragment is refused: Nix reads store settings from them, and
// "?trusted=1" would switch signatures off.
//
// +kubebuilder:validation:MinLength=8
// +kubebuilder:validation:MaxLength=512
// +kubebuilder:validation:Pattern=`^https?://[^?#[:space:]]+$`
type CacheURL string

// NixPublicKey is a public key for store path signatures as Nix prints it: a
// name, a colon and 32 bytes in base64, such as
// cache.example.org-1:sglB1S9VqHHsZ9c4m3mBn3nYRNmmn5JL0kl6rm2aEGQ=.
//
// +kubebuilder:validation:MinLength=46
// +kubebuilder:validation:MaxLength=255
// +kubebuilder:validation:Pattern=`^[^:[:space:]]+:[A-Za-z0-9+/]{43}=$`
type NixPublicKey string

// HostName is the name of a Host object.
//
// +kubebuilder:validation:MinLength=1
// +kubebuilder:validation:MaxLength=200
// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`
type HostName string

// ObjectReference names an object of the same namespace and pins its identity,
// so that an object made anew under the same name is not mistaken for it.
type ObjectReference struct {
	// name is the name of the object.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +required
	Name string `json:"name,omitempty"`

	// uid is the UID of the object when the reference was made.
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	// +required
	UID types.UID `json:"uid,omitempty"`
}
