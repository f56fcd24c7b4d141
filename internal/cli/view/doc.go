// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

// Package view turns Hosts and Rollouts into the text that the command line shows.
//
// Everything here is a pure function of objects, the time and the width of the
// terminal: no client, no clock, no terminal. What comes from the API was written by
// hosts and by people and may hold anything; it is made harmless for a terminal here,
// and nowhere else.
package view
