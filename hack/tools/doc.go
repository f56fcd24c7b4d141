// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

// Package tools pins the programs that generate, format and check the code. It is
// a module of its own, so that their dependencies stay out of the operator's.
//
// Programs used as they are stand in go.mod as tool directives; golangci-lint is
// built from the package below, because its plugins have to be linked in. The
// Makefile builds each into bin/ when go.mod changes.
package tools
