// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

// Package kubeconfig writes the administrator's kubeconfig: one file with
// everything in it, so that it can be copied to another machine.
package kubeconfig
