//go:build !linux

// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package activation

// NewRunner returns the runner for the host whose file system begins at root.
func NewRunner(root string) Runner { return &DirectRunner{Root: root} }
