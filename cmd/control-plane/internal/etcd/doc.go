// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

// Package etcd runs the one-member etcd that the API server stores in.
//
// It is reached over a Unix socket in a directory that only the control
// plane's user may enter: whoever could write to etcd would be past every
// authorization, and a socket needs neither a port nor certificates. Nothing
// but the API server may talk to it.
package etcd
