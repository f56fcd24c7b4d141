# SPDX-License-Identifier: Apache-2.0
# Copyright The NixFleet Authors.
{
  config,
  lib,
  options,
  ...
}:
let
  cfg = config.services.nixfleet-microvm-host;
  ipv4 = import ../../../lib/ipv4.nix;
  persistence = import ../impermanence/lib.nix { inherit config lib options; };

  network = ipv4.parseNetwork cfg.bridge.address;
  first = ipv4.parse cfg.dhcp.range.first;
  last = ipv4.parse cfg.dhcp.range.last;
  isHost = address: address != null && address > network.first && address < network.last;
in
{
  _class = "nixos";

  imports = [
    ./options.nix
    ../impermanence
  ];

  config = lib.mkIf cfg.enable (
    lib.mkMerge [
      {
        assertions = [
          {
            assertion = network != null && isHost network.address;
            message = ''services.nixfleet-microvm-host.bridge.address is "${cfg.bridge.address}"; write the address of a host with the length of its network's prefix, such as "10.88.0.1/24"'';
          }
          {
            assertion = !cfg.dhcp.enable || network == null || (isHost first && isHost last && first <= last);
            message = "services.nixfleet-microvm-host.dhcp.range goes from ${cfg.dhcp.range.first} to ${cfg.dhcp.range.last}; write two addresses of the network of the bridge, ${cfg.bridge.address}, the lower one first";
          }
          {
            assertion =
              !cfg.dhcp.enable
              || network == null
              || first == null
              || last == null
              || network.address < first
              || network.address > last;
            message = "services.nixfleet-microvm-host.dhcp.range has the bridge's own address, ${cfg.bridge.address}, in it; begin it behind that address";
          }
        ];

        systemd.network = {
          enable = true;
          netdevs."20-nixfleet-microvm".netdevConfig = {
            Kind = "bridge";
            Name = cfg.bridge.name;
          };
          networks."20-nixfleet-microvm-guests" = {
            matchConfig.Name = cfg.bridge.interfaces;
            networkConfig.Bridge = cfg.bridge.name;
            # Guests come and go; the host does not wait for them when it boots.
            linkConfig.RequiredForOnline = "no";
          };
          networks."20-nixfleet-microvm" = {
            matchConfig.Name = cfg.bridge.name;
            address = [ cfg.bridge.address ];
            networkConfig = {
              ConfigureWithoutCarrier = true;
              DHCPServer = cfg.dhcp.enable;
            };
            linkConfig.RequiredForOnline = "no";
          }
          // lib.optionalAttrs cfg.dhcp.enable {
            dhcpServerConfig = {
              # Counted from the first address of the network.
              PoolOffset = first - network.first;
              PoolSize = last - first + 1;
              EmitDNS = true;
            };
          };
        };

        networking.nat = {
          enable = true;
          internalInterfaces = [ cfg.bridge.name ];
          externalInterface = lib.mkIf (cfg.externalInterface != null) cfg.externalInterface;
        };

        networking.firewall.interfaces.${cfg.bridge.name}.allowedUDPPorts = lib.mkIf cfg.dhcp.enable [ 67 ];
      }
      (persistence.directories [ "/var/lib/microvms" ])
    ]
  );
}
