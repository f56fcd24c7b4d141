// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

// Package atomicfile replaces small files so that a reader, or a machine that
// loses power, finds either the old content or the new one and never a part.
//
// It knows nothing about what is in the files: certificates live in pki, the
// kubeconfig in kubeconfig.
package atomicfile
