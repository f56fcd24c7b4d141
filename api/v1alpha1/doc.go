// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

// Package v1alpha1 is the NixFleet API: Host, Release and Rollout in the group
// nixfleet.io.
//
// A Release names one system closure for each host. A Rollout moves hosts to a
// Release, wave by wave. A Host is one NixOS or nix-darwin machine; its agent
// reports into the status.
//
// Only types, their validation markers, condition types, reasons and field
// owners live here. The package imports apimachinery alone, so that other
// programs can use the types without the operator's dependencies. Logic belongs
// elsewhere.
//
// +kubebuilder:object:generate=true
// +groupName=nixfleet.io
package v1alpha1
