// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

// Package version holds the version that a program was built from. Programs print
// it, and agents report it in status.nodeInfo. Nothing decides by it.
package version
