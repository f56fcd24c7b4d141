// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

// Package ssa writes with server-side apply: each caller names itself as the owner
// and sends exactly the fields that it owns, so that controllers, agents, people and
// Git can share an object without overwriting each other.
//
// What to write is decided elsewhere; this package only turns typed values into
// requests.
package ssa
