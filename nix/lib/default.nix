# SPDX-License-Identifier: Apache-2.0
# Copyright The NixFleet Authors.
#
# The library of the flake. Nothing here reads nixpkgs by itself: what a function needs is
# handed in, by nix/modules/lib.nix or by a test.
{
  mkHost = import ./mk-host.nix;
  manifests = import ./manifests.nix;
}
