# SPDX-License-Identifier: Apache-2.0
# Copyright The NixFleet Authors.
h:
let
  with' = settings: h.configOf { modules = [ h.index.nixos.modules.microvm-host { services.nixfleet-microvm-host = settings; } ]; };
  on = settings: with' (h.lib.recursiveUpdate { enable = true; } settings);
  network = settings: (on settings).systemd.network;
  bridge = settings: (network settings).networks."20-nixfleet-microvm";
  refused = settings: h.messages (on settings);
  outOfRange = first: last: address: "services.nixfleet-microvm-host.dhcp.range goes from ${first} to ${last}; write two addresses of the network of the bridge, ${address}, the lower one first";
in
h.prefixed "microvm-host" {
  "off, it adds nothing" = {
    expr = h.same (with' { }) (h.configOf { modules = [ ]; });
    expected = true;
  };
  "on, nothing has to be said" = {
    expr = refused { };
    expected = [ ];
  };
  "defaults" = {
    expr = (on { }).services.nixfleet-microvm-host;
    expected = {
      enable = true;
      bridge = {
        name = "br-microvm";
        address = "10.88.0.1/24";
        interfaces = "vm-*";
      };
      externalInterface = null;
      dhcp = {
        enable = true;
        range.first = "10.88.0.10";
        range.last = "10.88.0.250";
      };
    };
  };
  "a bridge with an address" = {
    expr = [
      (network { bridge.name = "br0"; }).netdevs."20-nixfleet-microvm".netdevConfig
      (bridge { bridge.name = "br0"; }).matchConfig
      (bridge { bridge.address = "10.88.0.9/24"; }).address
      (network { }).enable
    ];
    expected = [
      { Kind = "bridge"; Name = "br0"; }
      { Name = "br0"; }
      [ "10.88.0.9/24" ]
      true
    ];
  };
  "guests join it" = {
    expr = removeAttrs (network { bridge.interfaces = "tap-*"; }).networks."20-nixfleet-microvm-guests" [ "linkConfig" ];
    expected = {
      matchConfig.Name = "tap-*";
      networkConfig.Bridge = "br-microvm";
    };
  };
  "addresses are counted from the first of the network" = {
    expr = removeAttrs (bridge { }).dhcpServerConfig [ "EmitDNS" ];
    expected = {
      PoolOffset = 10;
      PoolSize = 241;
    };
  };
  "another range in another network" = {
    expr = removeAttrs (bridge {
      bridge.address = "192.168.7.1/20";
      dhcp.range.first = "192.168.8.0";
      dhcp.range.last = "192.168.8.0";
    }).dhcpServerConfig [ "EmitDNS" ];
    expected = {
      PoolOffset = 2048;
      PoolSize = 1;
    };
  };
  "the firewall lets guests ask for an address" = {
    expr = (on { }).networking.firewall.interfaces;
    expected.br-microvm.allowedUDPPorts = [ 67 ];
  };
  "without DHCP" = {
    expr =
      let
        config = on { dhcp.enable = false; };
        net = config.systemd.network.networks."20-nixfleet-microvm";
      in
      [ net.networkConfig.DHCPServer (net ? dhcpServerConfig) (config.networking.firewall.interfaces.br-microvm ? allowedUDPPorts) ];
    expected = [ false false false ];
  };
  "a way out" = {
    expr = map (s: (on s).networking.nat) [ { } { externalInterface = "enp1s0"; } ];
    expected = [
      { enable = true; internalInterfaces = [ "br-microvm" ]; externalInterface = null; }
      { enable = true; internalInterfaces = [ "br-microvm" ]; externalInterface = "enp1s0"; }
    ];
  };
  "refused: an address that is none of a host" = {
    expr = map (address: builtins.head (refused { bridge = { inherit address; }; })) [ "10.88.0.1" "10.88.0.0/24" "10.88.0.255/24" "fd00::1/64" ];
    expected = map (address: ''services.nixfleet-microvm-host.bridge.address is "${address}"; write the address of a host with the length of its network's prefix, such as "10.88.0.1/24"'') [ "10.88.0.1" "10.88.0.0/24" "10.88.0.255/24" "fd00::1/64" ];
  };
  "refused: a range outside the network, or the wrong way round" = {
    expr = [
      (refused { bridge.address = "10.99.0.1/24"; })
      (refused { dhcp.range.first = "10.88.0.251"; })
      (refused { dhcp.range.last = "x"; })
      (refused { dhcp.enable = false; dhcp.range.last = "x"; })
    ];
    expected = [
      [ (outOfRange "10.88.0.10" "10.88.0.250" "10.99.0.1/24") ]
      [ (outOfRange "10.88.0.251" "10.88.0.250" "10.88.0.1/24") ]
      [ (outOfRange "10.88.0.10" "x" "10.88.0.1/24") ]
      [ ]
    ];
  };
  "refused: a range with the bridge's own address" = {
    expr = refused { dhcp.range.first = "10.88.0.1"; };
    expected = [ "services.nixfleet-microvm-host.dhcp.range has the bridge's own address, 10.88.0.1/24, in it; begin it behind that address" ];
  };
}
