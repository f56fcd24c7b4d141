# SPDX-License-Identifier: Apache-2.0
# Copyright The NixFleet Authors.
h:
let
  with' = settings: h.configOf { modules = [ h.index.nixos.modules.cache { services.nixfleet-cache = settings; } ]; };
  good = {
    enable = true;
    url = "https://cache.example.org";
    publicKey = "fleet-cache-1:sglB1S9VqHHsZ9c4m3mBn3nYRNmmn5JL0kl6rm2aEGQ=";
  };
  refused = settings: h.messages (with' (good // settings));
in
h.prefixed "cache" {
  "off, it adds nothing" = {
    expr = h.same (with' { }) (h.configOf { modules = [ ]; });
    expected = true;
  };
  "on, Nix knows the cache and its key" = {
    expr = h.lib.getAttrs [ "substituters" "trusted-public-keys" ] (with' good).nix.settings;
    expected = {
      substituters = [ good.url ];
      trusted-public-keys = [ good.publicKey ];
    };
  };
  "on, it is one of several" = {
    expr = (h.configOf {
      modules = [
        h.index.nixos.modules.cache
        {
          services.nixfleet-cache = good;
          nix.settings.substituters = h.lib.mkAfter [ "https://cache.nixos.org" ];
        }
      ];
    }).nix.settings.substituters;
    expected = [ good.url "https://cache.nixos.org" ];
  };
  "good settings are not refused" = {
    expr = refused { } ++ refused { url = "s3://fleet?region=eu-west-3"; };
    expected = [ ];
  };
  "what has no default has to be set" = {
    expr = map (name: h.throws (with' (removeAttrs good [ name ])).nix.settings) [ "url" "publicKey" ];
    expected = [ true true ];
  };
  "refused: url" = {
    expr = refused { url = "cache.example.org"; };
    expected = [ ''services.nixfleet-cache.url is "cache.example.org"; write an http, https or s3 URL, such as "https://cache.example.org"'' ];
  };
  "refused: a url that turns signatures off" = {
    expr = refused { url = "https://cache.example.org?trusted=1"; };
    expected = [ "services.nixfleet-cache.url must not have the parameter trusted, which turns off the check of signatures; remove it and set services.nixfleet-cache.publicKey" ];
  };
  "refused: publicKey" = {
    expr = refused { publicKey = "AAAA"; };
    expected = [ ''services.nixfleet-cache.publicKey is "AAAA"; write it as NAME:BASE64, the way nix-store --generate-binary-cache-key puts it into the public file'' ];
  };
}
