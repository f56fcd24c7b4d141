// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

// Package command is the command line: flags, help, version, logging and
// signals. What is then done is in package controlplane.
package command
