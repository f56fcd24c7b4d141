# SPDX-License-Identifier: Apache-2.0
# Copyright The NixFleet Authors.
{ lib, ... }:
let
  inherit (lib) mkOption types;
in
{
  _class = "nixos";

  options.services.nixfleet-microvm-host = {
    enable = mkOption {
      type = types.bool;
      default = false;
      description = ''
        Whether this host has a network for guests of
        [microvm.nix](https://github.com/microvm-nix/microvm.nix): a bridge that their tap
        interfaces join by themselves, with addresses and a way out by NAT. The guests
        themselves are those of microvm.nix, whose module `inputs.microvm.nixosModules.host`
        the host imports.
      '';
    };

    bridge = {
      name = mkOption {
        type = types.strMatching "[A-Za-z0-9_-]{1,15}";
        default = "br-microvm";
        description = "Name of the bridge.";
      };

      address = mkOption {
        type = types.str;
        default = "10.88.0.1/24";
        description = ''
          IPv4 address of the host on the bridge with the length of the network's prefix. It is
          the guests' gateway.
        '';
      };

      interfaces = mkOption {
        type = types.str;
        default = "vm-*";
        description = ''
          Which interfaces join the bridge, as a pattern of systemd.network's `Name=`: call the
          tap interfaces of guests accordingly.
        '';
      };
    };

    externalInterface = mkOption {
      type = types.nullOr types.str;
      default = null;
      example = "enp1s0";
      description = "Interface that guests reach other networks by. Null: whichever the route takes.";
    };

    dhcp = {
      enable = mkOption {
        type = types.bool;
        default = true;
        description = "Whether guests get their addresses by DHCP.";
      };

      range = {
        first = mkOption {
          type = types.str;
          default = "10.88.0.10";
          description = "First address that is given out.";
        };
        last = mkOption {
          type = types.str;
          default = "10.88.0.250";
          description = "Last address that is given out.";
        };
      };
    };
  };
}
