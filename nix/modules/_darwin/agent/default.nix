# SPDX-License-Identifier: Apache-2.0
# Copyright The NixFleet Authors.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.services.nixfleet-agent;
  common = import ../../_shared/agent/config.nix { inherit config lib pkgs; };

  # Nix may be managed by something else, and is then in its default profile.
  path =
    lib.optional (config.nix.enable or true) "${config.nix.package}/bin"
    ++ [
      "/nix/var/nix/profiles/default/bin"
      "/usr/bin"
      "/bin"
      "/usr/sbin"
      "/sbin"
    ];
in
{
  _class = "darwin";

  imports = [ ./options.nix ];

  config = lib.mkIf cfg.enable (
    lib.mkMerge [
      common.module
      {
        launchd.daemons.nixfleet-agent.serviceConfig = {
          ProgramArguments = [
            "${cfg.package}/bin/nixfleet-agent"
            "run"
            "--config"
            "${common.configFile}"
          ];
          EnvironmentVariables.PATH = lib.concatStringsSep ":" path;
          KeepAlive = true;
          RunAtLoad = true;
          # A changed plist is unloaded and loaded again in the middle of the activation that
          # changes it, and the agent has started that.
          AbandonProcessGroup = true;
          StandardOutPath = "/var/log/nixfleet-agent.log";
          StandardErrorPath = "/var/log/nixfleet-agent.log";
        };
      }
    ]
  );
}
