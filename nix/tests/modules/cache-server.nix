# SPDX-License-Identifier: Apache-2.0
# Copyright The NixFleet Authors.
h:
let
  with' =
    harmonia: settings:
    h.configOf {
      modules = [
        h.index.nixos.modules.cache-server
        harmonia
        { services.nixfleet-cache-server = settings; }
      ];
    };
  inherit (h.stubs) newHarmonia oldHarmonia;
  good = {
    enable = true;
    signingKeyFile = "/run/secrets/cache";
  };
  on = settings: with' newHarmonia (good // settings);
in
h.prefixed "cache-server" {
  "off, it adds nothing" = {
    expr = map (harmonia: h.same (with' harmonia { }) (h.configOf { modules = [ harmonia ]; })) [ newHarmonia oldHarmonia ];
    expected = [ true true ];
  };
  "on, harmonia signs and serves" = {
    expr = (on { }).services.harmonia.cache;
    expected = {
      enable = true;
      signKeyPaths = [ "/run/secrets/cache" ];
      settings.bind = "[::]:5000";
    };
  };
  "on, the same with an older NixOS" = {
    expr = (with' oldHarmonia good).services.harmonia;
    expected = (on { }).services.harmonia.cache;
  };
  "port" = {
    expr = (on { port = 8080; }).services.harmonia.cache.settings.bind;
    expected = "[::]:8080";
  };
  "the firewall stays closed unless it is asked to open" = {
    expr = map (s: (on s).networking.firewall.allowedTCPPorts) [
      { }
      { openFirewall = true; }
      { openFirewall = true; port = 8080; }
    ];
    expected = [ [ ] [ 5000 ] [ 8080 ] ];
  };
  "the key has to be set" = {
    expr = h.throws (with' newHarmonia { enable = true; }).services.harmonia.cache;
    expected = true;
  };
  "refused: a secret key in the store" = {
    expr = map (signingKeyFile: h.messages (on { inherit signingKeyFile; })) [
      ../../schemas/samples/host.json
      "${builtins.storeDir}/00000000000000000000000000000000-key"
      "/run/secrets/cache"
    ];
    expected =
      let
        message = ''services.nixfleet-cache-server.signingKeyFile lies in the store, which everybody can read, and the cache would even serve it; write the path on the host as a string, such as "/run/agenix/cache-signing-key", and make a new key'';
      in
      [ [ message ] [ message ] [ ] ];
  };
}
