// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

// Package deadman brings a host back to what it ran before an attempt, when the agent
// decides so and when nobody is left to decide.
//
// It works inside a system that may be broken in any way: without a network, a message
// bus, an agent or a configuration, as the old program beside the new system's files. So
// it reads the attempt's directory and nothing else, calls programs by absolute paths,
// bounds every step, and has a last one: a reboot, into the boot default, which an attempt
// leaves alone until it is committed.
//
// ladder.go has the steps in their order and nothing that touches the machine; host.go
// touches it. When to go back is decided in internal/agent or by a timer.
package deadman
