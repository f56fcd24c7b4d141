# SPDX-License-Identifier: Apache-2.0
# Copyright The NixFleet Authors.
{ lib, ... }:
let
  inherit (lib) mkOption types;
in
{
  _class = "nixos";

  options.services.nixfleet-cache = {
    enable = mkOption {
      type = types.bool;
      default = false;
      description = ''
        Whether Nix on this host fetches from a binary cache of the fleet, in addition to those
        it knows. The agent does not depend on it: a Release names its own caches.
      '';
    };

    url = mkOption {
      type = types.str;
      example = "https://cache.example.org";
      description = "URL of the cache.";
    };

    publicKey = mkOption {
      type = types.str;
      example = "fleet-cache-1:sglB1S9VqHHsZ9c4m3mBn3nYRNmmn5JL0kl6rm2aEGQ=";
      description = ''
        Public key that signs what the cache serves, as `nix-store
        --generate-binary-cache-key` prints it. Nix then trusts it on this host for everything
        but systems: whose systems are activated is `services.nixfleet-agent.trustedPublicKeys`.
      '';
    };
  };
}
