// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

// Package nixtest makes real system closures, keys and binary caches for tests, with the
// Nix that is installed and without nixpkgs. Closures have everything that NixFleet reads
// of a NixOS system, and a program switch-to-configuration that changes nothing but the
// root it lies in.
//
// It is for tests alone. It needs nix and a /bin/sh with the usual tools beside it, and,
// because a store with another root is built in a mount namespace, the rights to make
// one.
package nixtest
