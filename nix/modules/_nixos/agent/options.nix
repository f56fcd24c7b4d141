# SPDX-License-Identifier: Apache-2.0
# Copyright The NixFleet Authors.
{ lib, ... }:
let
  inherit (lib) mkOption types;
in
{
  _class = "nixos";

  imports = [ ../../_shared/agent/options.nix ];

  options.services.nixfleet-agent.healthChecks.systemd = mkOption {
    type = types.attrsOf (
      types.submodule {
        options = {
          units = mkOption {
            type = types.nonEmptyListOf (
              types.strMatching "[A-Za-z0-9:_.\\@-]{1,245}[.](service|socket|target|timer|mount|path|device|slice|scope|automount|swap)"
            );
            example = [ "nginx.service" ];
            description = "Units that have to be active, with their suffix; at most 32.";
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
      web.units = [
        "nginx.service"
        "php-fpm.service"
      ];
    };
    description = ''
      Units of systemd by name. A check passes when all its units are active. Units that newly
      fail with a release are found without a check.
    '';
  };
}
