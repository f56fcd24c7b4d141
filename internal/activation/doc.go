// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

// Package activation runs the program by which a system makes itself the running one,
// switch-to-configuration, and tells which system runs.
//
// On a machine with systemd the program gets a transient unit of its own, so that it
// survives a restart of the agent, which it may cause. Elsewhere, and for a host that
// lives in a directory, it runs in a session of its own.
//
// Whether to activate, and what follows from an exit code, is decided in internal/agent.
package activation
