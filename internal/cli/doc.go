// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

// Package cli is the operator's command line, kubectl nixfleet: commands, flags, exit
// codes, and how objects are read and followed.
//
// It talks to the Kubernetes API alone, with the rights of whoever runs it. What is shown
// is made in package view, which has no client and no terminal. Nothing here decides
// anything about a fleet.
package cli
