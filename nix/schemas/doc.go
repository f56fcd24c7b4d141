// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

// Package schemas keeps what the Nix modules write and what the agent reads the same: the
// JSON schemas of the files that a system carries, and samples of what the modules write
// for the options in sample.nix. The tests of the modules compare their output with the
// samples; the tests here hand the samples to the agent and check them by the schemas.
//
// There is no code here, and none belongs here: the agent reads files without a schema.
package schemas
