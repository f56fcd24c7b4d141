// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

// Package nix is what NixFleet knows about a Nix store on a machine: store paths, the
// facts that a store has registered about them, whose signature on a system is obeyed,
// fetching, garbage-collector roots, the system profile, and what a system closure
// says about itself.
//
// Trust and parsing are pure functions. The store and the profile are driven through
// the commands nix-store and nix-env, whose interface has been the same since Nix 2.3
// in every implementation; the experimental commands are used only where nothing
// depends on their success.
//
// The protocol of binary caches lives in the package binarycache below. Whether and
// when a host moves is decided in internal/agent, and running a system's programs is
// the business of internal/activation: nothing here does either.
package nix
