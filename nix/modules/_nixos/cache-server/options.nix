# SPDX-License-Identifier: Apache-2.0
# Copyright The NixFleet Authors.
{ lib, ... }:
let
  inherit (lib) mkOption types;
in
{
  _class = "nixos";

  options.services.nixfleet-cache-server = {
    enable = mkOption {
      type = types.bool;
      default = false;
      description = ''
        Whether this host serves its own Nix store as a binary cache, with
        [harmonia](https://github.com/nix-community/harmonia). What is to be served has to be
        in the store: build it here, or `nix copy --to ssh://` it here.

        It speaks plain HTTP. Signatures, not the transport, are what hosts trust; put a web
        server in front of it where names of store paths are confidential.
      '';
    };

    port = mkOption {
      type = types.port;
      default = 5000;
      description = "TCP port that it listens on, on all addresses.";
    };

    openFirewall = mkOption {
      type = types.bool;
      default = false;
      description = "Whether to open `port` in the firewall.";
    };

    signingKeyFile = mkOption {
      type = types.path;
      example = "/run/agenix/cache-signing-key";
      description = ''
        Secret key that signs what is served, as `nix-store --generate-binary-cache-key` writes
        it; a path on the host, as a string and never as a path literal. The owner may be root:
        systemd hands it to the service.

        A host obeys systems that are signed by a key of its `trustedPublicKeys`. If this key
        is one of them, whatever gets into this store can become a system of the fleet: sign
        systems with another key where they are built if that is not what you want.
      '';
    };
  };
}
