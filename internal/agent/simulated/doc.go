// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

// Package simulated has hosts that exist in memory only, for an agent that is real in
// everything else: its state machine, its plans on disk, its connection to the gateway.
// A Host is the Activator, Profile, Source and Prober of a Machine, and fails as it is
// told to. hack/agents runs thousands of them in one process.
//
// Nothing of the product may use it.
package simulated
