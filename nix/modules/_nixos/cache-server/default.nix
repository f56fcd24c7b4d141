# SPDX-License-Identifier: Apache-2.0
# Copyright The NixFleet Authors.
{
  config,
  lib,
  options,
  ...
}:
let
  cfg = config.services.nixfleet-cache-server;
  shared = import ../../_shared/options.nix { inherit lib; };

  harmonia = {
    enable = true;
    signKeyPaths = [ (toString cfg.signingKeyFile) ];
    settings.bind = "[::]:${toString cfg.port}";
  };
in
{
  _class = "nixos";

  imports = [ ./options.nix ];

  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = !(shared.inStore cfg.signingKeyFile);
        message = ''services.nixfleet-cache-server.signingKeyFile lies in the store, which everybody can read, and the cache would even serve it; write the path on the host as a string, such as "/run/agenix/cache-signing-key", and make a new key'';
      }
    ];

    # Its options have moved into "cache"; older releases of NixOS have them flat.
    services.harmonia = if options ? services.harmonia.cache then { cache = harmonia; } else harmonia;

    networking.firewall.allowedTCPPorts = lib.mkIf cfg.openFirewall [ cfg.port ];
  };
}
