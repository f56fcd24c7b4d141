# SPDX-License-Identifier: Apache-2.0
# Copyright The NixFleet Authors.
{ lib, ... }:
{
  _class = "nixos";

  nix.settings.experimental-features = [
    "nix-command"
    "flakes"
  ];
  nix.optimise.automatic = lib.mkDefault true;

  # Old generations of profiles go after a month. What the agent needs, to finish or to go
  # back, it has rooted below /nix/var/nix/gcroots, which this leaves alone.
  nix.gc = {
    automatic = lib.mkDefault true;
    dates = lib.mkDefault "weekly";
    options = lib.mkDefault "--delete-older-than 30d";
  };
}
