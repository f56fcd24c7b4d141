// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

// Package rollout decides, for every host of a rollout, whether it may move now, and
// says why not.
//
// Plan is a pure function from a Snapshot and a point in time to a Decision. It reads
// no clock, calls no client, starts no goroutine, logs nothing and does not depend on
// the order of maps. The controller in controllers/rollout gathers the snapshot and
// carries the decision out; the preview of the command line calls the same function.
//
// The gates that can hold a wave or a host are a visible list of small functions in
// gates.go. Each answers with a reason and a message that has numbers in it; the same
// note reaches the rollout's condition, its event and the log.
package rollout
