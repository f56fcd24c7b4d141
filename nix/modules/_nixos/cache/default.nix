# SPDX-License-Identifier: Apache-2.0
# Copyright The NixFleet Authors.
{ config, lib, ... }:
let
  cfg = config.services.nixfleet-cache;
in
{
  _class = "nixos";

  imports = [ ./options.nix ];

  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = builtins.match "(https?|s3)://.+" cfg.url != null;
        message = ''services.nixfleet-cache.url is "${cfg.url}"; write an http, https or s3 URL, such as "https://cache.example.org"'';
      }
      {
        assertion = builtins.match ".*[?&]trusted=.*" cfg.url == null;
        message = "services.nixfleet-cache.url must not have the parameter trusted, which turns off the check of signatures; remove it and set services.nixfleet-cache.publicKey";
      }
      {
        assertion = builtins.match "[^: ]+:[A-Za-z0-9+/]{43}=" cfg.publicKey != null;
        message = ''services.nixfleet-cache.publicKey is "${cfg.publicKey}"; write it as NAME:BASE64, the way nix-store --generate-binary-cache-key puts it into the public file'';
      }
    ];

    nix.settings = {
      substituters = [ cfg.url ];
      trusted-public-keys = [ cfg.publicKey ];
    };
  };
}
