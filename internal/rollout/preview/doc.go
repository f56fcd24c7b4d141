// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

// Package preview plays a rollout ahead: it calls the planner of internal/rollout, lets
// every host do at once and well what it is asked, and notes what happens.
//
// It is a pure function like the planner: nothing is read from or written to an API. What
// it assumes beyond what it was given, such as a person's approval, it says.
package preview
