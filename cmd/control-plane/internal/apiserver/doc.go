// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

// Package apiserver assembles the generic Kubernetes API server: namespaces,
// RBAC, CRDs, Secrets, Leases, Events, service accounts and admission
// policies, but nothing about pods or nodes.
//
// It is wiring alone. What is stored at start is the business of bootstrap;
// what looks after stored objects, of controllers.
package apiserver
