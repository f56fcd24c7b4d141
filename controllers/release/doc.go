// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

// Package release is the controller of Releases. It has the closures of a release checked
// against the binary caches, keeps the status, and lets a release go when no unfinished
// rollout uses it any more.
//
// Checks take minutes for a large fleet, so they run beside the reconciler (checks.go).
// What a status has to say and when to check again is decided in plan.go, without a
// client; how a closure is checked is the business of internal/nix/binarycache.
package release
