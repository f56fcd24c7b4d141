# SPDX-License-Identifier: Apache-2.0
# Copyright The NixFleet Authors.
#
# Tests of the modules with the real module system. nixpkgsLib is the directory lib of
# nixpkgs, or of a copy such as github:nix-community/nixpkgs.lib.
{ nixpkgsLib }:
let
  lib = import nixpkgsLib;
  harness = import ./harness.nix { inherit lib; };
  tests = lib.foldl' (
    all: name: all // import (./modules + "/${name}") harness
  ) { } (lib.attrNames (builtins.readDir ./modules));
in
import ./run.nix tests
