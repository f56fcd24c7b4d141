// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

// Package health runs the health checks of a host: those that its system carries and
// those of its Host object. A command can come only from the system, which is signed;
// what comes from the API reaches nothing but 127.0.0.1.
//
// What follows from a failed check is decided in internal/agent.
package health
