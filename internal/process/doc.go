// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

// Package process runs a program in a session of its own, so that it can be ended
// together with everything that it started, and keeps a bounded part of its output.
//
// It is for programs of a system: activation and health checks. It knows nothing of
// either. The commands of Nix are run by internal/nix, which reads their output.
package process
