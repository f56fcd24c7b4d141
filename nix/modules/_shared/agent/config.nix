# SPDX-License-Identifier: Apache-2.0
# Copyright The NixFleet Authors.
#
# What NixOS and darwin have in common when the agent is enabled. It is put below mkIf.
{
  config,
  lib,
  pkgs,
}:
let
  cfg = config.services.nixfleet-agent;
  files = import ./files.nix { inherit lib; };
  checks = files.healthChecks cfg;
in
rec {
  # The service names its configuration by its path in the store. Otherwise an agent that is
  # restarted in the middle of an activation would be the old program with the new file.
  configFile = pkgs.writeText "nixfleet-agent.json" (builtins.toJSON cfg.settings);

  module = {
    assertions = import ./assertions.nix { inherit lib cfg; };

    services.nixfleet-agent.settings = lib.mapAttrs (_: lib.mkDefault) (files.settings cfg);

    # For nixfleet-agent status and check at the command line.
    environment.systemPackages = [ cfg.package ];

    environment.etc = {
      "nixfleet/agent.yaml".source = configFile;
      "nixfleet/host.json".text = builtins.toJSON (
        files.hostIdentity cfg pkgs.stdenv.hostPlatform.system
      );
    }
    // lib.optionalAttrs (checks != [ ]) {
      "nixfleet/health-checks.json".text = builtins.toJSON { inherit checks; };
    };
  };
}
