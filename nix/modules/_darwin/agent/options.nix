# SPDX-License-Identifier: Apache-2.0
# Copyright The NixFleet Authors.
{ lib, ... }:
let
  inherit (lib) mkOption types;
in
{
  _class = "darwin";

  imports = [ ../../_shared/agent/options.nix ];

  options.services.nixfleet-agent.healthChecks.launchd = mkOption {
    type = types.attrsOf (
      types.submodule {
        options = {
          labels = mkOption {
            type = types.nonEmptyListOf (types.strMatching "[A-Za-z0-9._-]{1,255}");
            example = [ "org.nixos.nix-daemon" ];
            description = "Labels of services of the system that have to run; at most 32.";
          };
          timeoutSeconds = mkOption {
            type = types.ints.between 1 1800;
            default = 60;
            description = ''
              For how many seconds after an activation the check may fail before the host goes
              back; it is tried every second.
            '';
          };
        };
      }
    );
    default = { };
    example = {
      daemon.labels = [ "org.nixos.nix-daemon" ];
    };
    description = "Services of launchd by name. A check passes when all its services run.";
  };
}
