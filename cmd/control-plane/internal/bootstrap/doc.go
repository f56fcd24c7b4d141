// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

// Package bootstrap stores in a fresh API server what NixFleet needs there, and
// brings it up to date in an old one: the system's namespace, the CRDs, the
// admission policies and the RBAC rules.
//
// What that is stands in the repository's config folder, the same files that
// are installed on a cluster; nothing is defined here.
package bootstrap
