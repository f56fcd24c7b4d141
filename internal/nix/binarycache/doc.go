// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

// Package binarycache asks binary caches over HTTP what they have: single paths, whole
// closures with their signatures and sizes, and what a host would have to download.
//
// Requests and what may go wrong with them live in client.go, the format in narinfo.go,
// the walk through a reference graph in walk.go. What a finding means is decided apart
// from the walk, in judge.go, by functions without I/O. Nothing here downloads contents
// or writes to a store: that is Nix's part, see package nix.
package binarycache
