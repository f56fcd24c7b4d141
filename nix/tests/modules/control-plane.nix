# SPDX-License-Identifier: Apache-2.0
# Copyright The NixFleet Authors.
h:
let
  inherit (h) lib index;
  modules = [ index.nixos.modules.control-plane ];
  with' = settings: h.configOf { modules = modules ++ [ { services.nixfleet-control-plane = settings; } ]; };
  on = settings: with' (settings // { enable = true; });
  unit = settings: (on settings).systemd.services.nixfleet-control-plane;
  command = settings: (unit settings).serviceConfig.ExecStart;
  program = "${h.stubs.package "nixfleet-control-plane"}/bin/nixfleet-control-plane";
  # The flags that differ from those without settings.
  flags =
    settings:
    let
      words = s: lib.filter (w: builtins.isString w && w != "") (builtins.split " " s);
    in
    lib.subtractLists (words (command { })) (words (command settings));
  refused = settings: h.messages (on settings);
in
h.prefixed "control-plane" {
  "off, it adds nothing" = {
    expr = h.same (with' { }) (h.configOf { modules = [ ]; });
    expected = true;
  };
  "on, nothing has to be said" = {
    expr = refused { };
    expected = [ ];
  };
  "defaults" = {
    expr = removeAttrs (on { }).services.nixfleet-control-plane [ "package" ];
    expected = {
      enable = true;
      dataDir = "/var/lib/nixfleet-control-plane";
      listen = {
        address = "127.0.0.1";
        port = 6443;
        names = [ ];
      };
      gatewayListen = {
        address = "0.0.0.0";
        port = 8443;
        names = [ "fqdn.example.org" ];
      };
      openFirewall = false;
      hostOfflineAfterSeconds = 180;
      metricsListen = null;
      extraArgs = [ ];
    };
  };
  "the command without settings" = {
    expr = command { };
    expected = lib.concatStringsSep " " [
      program
      ''"--data-dir=/var/lib/nixfleet-control-plane"''
      ''"--bind-address=127.0.0.1"''
      ''"--secure-port=6443"''
      ''"--gateway-address=0.0.0.0:8443"''
      ''"--gateway-name=fqdn.example.org"''
      ''"--host-offline-after=180s"''
    ];
  };
  "each option has its flag" = {
    expr = map flags [
      { dataDir = "/srv/fleet"; }
      { listen.address = "10.0.0.1"; }
      { listen.port = 7443; }
      {
        listen.names = [
          "api.example.org"
          "10.0.0.1"
        ];
      }
      { gatewayListen.address = "::"; }
      { gatewayListen.port = 443; }
      { gatewayListen.names = [ "fleet.example.org" ]; }
      { hostOfflineAfterSeconds = 60; }
      { metricsListen = "127.0.0.1:8080"; }
      { extraArgs = [ "-v=2" ]; }
    ];
    expected = [
      [ ''"--data-dir=/srv/fleet"'' ]
      [ ''"--bind-address=10.0.0.1"'' ]
      [ ''"--secure-port=7443"'' ]
      [
        ''"--api-name=api.example.org"''
        ''"--api-name=10.0.0.1"''
      ]
      [ ''"--gateway-address=[::]:8443"'' ]
      [ ''"--gateway-address=0.0.0.0:443"'' ]
      [ ''"--gateway-name=fleet.example.org"'' ]
      [ ''"--host-offline-after=60s"'' ]
      [ ''"--metrics-bind-address=127.0.0.1:8080"'' ]
      [ ''"-v=2"'' ]
    ];
  };
  "systemd reads arguments as they were written" = {
    expr = lib.last (lib.splitString " \"--host-offline-after=180s\" " (command { extraArgs = [ ''a "b" $c 100% \'' ]; }));
    expected = ''"a \"b\" $$c 100%% \\"'';
  };
  "package: it is run" = {
    expr = lib.hasPrefix "${h.stubs.package "mine"}/bin/nixfleet-control-plane " (command { package = h.stubs.package "mine"; });
    expected = true;
  };
  "the firewall stays closed unless it is asked to open, and then for the gateway alone" = {
    expr = map (s: (on s).networking.firewall.allowedTCPPorts) [
      { }
      { openFirewall = true; }
      {
        openFirewall = true;
        gatewayListen.port = 443;
      }
    ];
    expected = [
      [ ]
      [ 8443 ]
      [ 443 ]
    ];
  };
  "the data directory is systemd's below /var/lib" = {
    expr = [
      (unit { }).serviceConfig.StateDirectory
      (unit { }).serviceConfig.StateDirectoryMode
      (on { }).systemd.tmpfiles.rules
    ];
    expected = [
      "nixfleet-control-plane"
      "0700"
      [ ]
    ];
  };
  "the data directory is made anywhere else" = {
    expr = [
      ((unit { dataDir = "/srv/fleet"; }).serviceConfig ? StateDirectory)
      (unit { dataDir = "/srv/fleet"; }).serviceConfig.ReadWritePaths
      (on { dataDir = "/srv/fleet"; }).systemd.tmpfiles.rules
    ];
    expected = [
      false
      [ "/srv/fleet" ]
      [ "d /srv/fleet 0700 nixfleet-control-plane nixfleet-control-plane -" ]
    ];
  };
  "it runs as a user of its own and says when it is ready" = {
    expr = {
      inherit ((unit { }).serviceConfig) Type User Group;
      user = (on { }).users.users.nixfleet-control-plane.isSystemUser;
      group = lib.attrNames (on { }).users.groups;
    };
    expected = {
      Type = "notify";
      User = "nixfleet-control-plane";
      Group = "nixfleet-control-plane";
      user = true;
      group = [ "nixfleet-control-plane" ];
    };
  };
  "it has no capabilities but the one for a low port" = {
    expr = map (s: (unit s).serviceConfig.CapabilityBoundingSet) [
      { }
      { gatewayListen.port = 443; }
      { listen.port = 1023; }
    ];
    expected = [
      ""
      [ "CAP_NET_BIND_SERVICE" ]
      [ "CAP_NET_BIND_SERVICE" ]
    ];
  };
  "it is kept from the rest of the system" = {
    expr = lib.getAttrs [
      "NoNewPrivileges"
      "PrivateTmp"
      "ProtectHome"
      "ProtectSystem"
      "UMask"
    ] (unit { }).serviceConfig;
    expected = {
      NoNewPrivileges = true;
      PrivateTmp = true;
      ProtectHome = true;
      ProtectSystem = "strict";
      UMask = "0077";
    };
  };
  "refused: a data directory that is none" = {
    expr = map (dataDir: refused { inherit dataDir; }) [
      "fleet"
      "${builtins.storeDir}/x"
    ];
    expected = map (dataDir: [ ''services.nixfleet-control-plane.dataDir is "${dataDir}"; write an absolute path outside the store, such as "/var/lib/nixfleet-control-plane"'' ]) [
      "fleet"
      "${builtins.storeDir}/x"
    ];
  };
  "refused: one port for both" = {
    expr = refused { listen.port = 8443; };
    expected = [ "services.nixfleet-control-plane: the Kubernetes API and the gateway both have port 8443; set listen.port or gatewayListen.port to another" ];
  };
  "refused: what cannot be in a certificate" = {
    expr = refused {
      listen.names = [ "https://api.example.org" ];
      gatewayListen.names = [
        "Fleet.example.org"
        "fleet.example.org"
        "10.0.0.1"
        "2001:db8::1"
      ];
    };
    expected = [ ''services.nixfleet-control-plane: "https://api.example.org", "Fleet.example.org" in listen.names or gatewayListen.names is neither a DNS name in lower case nor an IP address; write it without scheme and port, such as "fleet.example.org"'' ];
  };
}
