// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

// Package stack runs parts that stand on one another: they start in order, stop
// in the opposite order, and the end of one ends all.
//
// It knows nothing about the parts.
package stack
