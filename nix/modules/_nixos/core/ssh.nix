# SPDX-License-Identifier: Apache-2.0
# Copyright The NixFleet Authors.
{
  config,
  lib,
  options,
  ...
}:
let
  persistence = import ../impermanence/lib.nix { inherit config lib options; };
in
{
  _class = "nixos";

  imports = [ ../impermanence ];

  config = lib.mkMerge [
    {
      services.openssh = {
        enable = lib.mkDefault true;
        settings = {
          PasswordAuthentication = lib.mkDefault false;
          KbdInteractiveAuthentication = lib.mkDefault false;
          PermitRootLogin = lib.mkDefault "prohibit-password";
        };
      };
    }
    # A host with new keys is another host, to people and to the gateway.
    (persistence.files [
      "/etc/ssh/ssh_host_ed25519_key"
      "/etc/ssh/ssh_host_ed25519_key.pub"
      "/etc/ssh/ssh_host_rsa_key"
      "/etc/ssh/ssh_host_rsa_key.pub"
    ])
  ];
}
