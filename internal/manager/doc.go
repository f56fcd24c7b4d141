// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

// Package manager puts the manager together: the controllers of Hosts, Releases and
// Rollouts and the agent gateway, over one cache. cmd/manager runs it in a cluster, the
// embedded control plane runs it beside its own API server.
//
// Only wiring lives here. What the parts do is in their own packages; a setting belongs
// here if a person may change it when starting the program.
package manager
