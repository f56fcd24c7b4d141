// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

// Package rollout is the controller of Rollouts. It gathers a snapshot, asks the
// planner of internal/rollout what to do, and writes the decision in an order in which
// a crash between any two writes loses nothing.
//
// It takes no decision of its own: which host moves when, and why not, is the planner's.
package rollout
