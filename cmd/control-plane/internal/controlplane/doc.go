// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

// Package controlplane puts the parts together: what is started in which
// order, what is told to the user and to systemd, and how everything ends.
//
// Each part is a package of its own beside this one.
package controlplane
