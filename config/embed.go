// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

// Package config holds the manifests of NixFleet: what an API server needs to know
// of the API (crd, policy, rbac), and the deployment on a Kubernetes cluster
// (manager, gateway, default), for kustomize.
//
// FS carries the first group for programs that prepare an API server themselves:
// the embedded control plane and the tests. No code but the embedding lives here.
package config

import "embed"

// FS has crd/bases, policy and rbac. They are to be applied in this order: a right
// must never be granted for a moment without the policy that narrows it. The folders
// also hold files of kind Kustomization, which are not for an API server.
//
//go:embed crd/bases/*.yaml policy/*.yaml rbac/*.yaml
var FS embed.FS
