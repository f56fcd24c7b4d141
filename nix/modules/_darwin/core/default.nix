# SPDX-License-Identifier: Apache-2.0
# Copyright The NixFleet Authors.
#
# What every darwin host of mkHost begins with. All of it is mkDefault: a host's own modules
# have the last word.
{ config, lib, ... }:
let
  inherit (config) hostSpec;
in
{
  _class = "darwin";

  imports = [ ../../_shared/host-spec.nix ];

  config = lib.mkMerge [
    {
      networking.hostName = lib.mkDefault hostSpec.hostName;
      time.timeZone = lib.mkDefault hostSpec.timeZone;
      security.pam.services.sudo_local.touchIdAuth = lib.mkDefault true;
    }
    (lib.mkIf (hostSpec.userName != null) {
      system.primaryUser = lib.mkDefault hostSpec.userName;
    })
    # A Nix that something else manages is told by nix.enable = false, and then configured
    # there: nix-darwin refuses definitions for it.
    (lib.mkIf config.nix.enable {
      nix.settings.experimental-features = [
        "nix-command"
        "flakes"
      ];
      nix.optimise.automatic = lib.mkDefault true;
      nix.gc = {
        automatic = lib.mkDefault true;
        options = lib.mkDefault "--delete-older-than 30d";
      };
    })
  ];
}
