// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

// Package datadir owns the layout of the control plane's data directory and
// the lock that lets only one process use it.
//
// Every path below the data directory is named here and nowhere else; what is
// in the files belongs to the packages that write them.
package datadir
