# SPDX-License-Identifier: Apache-2.0
# Copyright The NixFleet Authors.
#
# What every NixOS host of mkHost begins with. All of it is mkDefault: a host's own modules
# have the last word.
{
  config,
  lib,
  options,
  ...
}:
let
  inherit (config) hostSpec;
  persistence = import ../impermanence/lib.nix { inherit config lib options; };
in
{
  _class = "nixos";

  imports = [
    ../../_shared/host-spec.nix
    ../impermanence
    ./nix.nix
    ./ssh.nix
  ];

  config = lib.mkMerge [
    {
      networking.hostName = lib.mkDefault hostSpec.hostName;
      networking.firewall.enable = lib.mkDefault true;
      time.timeZone = lib.mkDefault hostSpec.timeZone;
      i18n.defaultLocale = lib.mkDefault hostSpec.locale;
      console.keyMap = lib.mkDefault hostSpec.keyboardLayout;
      services.xserver.xkb.layout = lib.mkDefault hostSpec.keyboardLayout;

      # A full boot partition makes activations fail, or worse, succeed.
      boot.loader.systemd-boot.configurationLimit = lib.mkDefault 20;
      boot.loader.grub.configurationLimit = lib.mkDefault 20;
    }
    (lib.mkIf (hostSpec.rootHashedPasswordFile != null) {
      users.users.root.hashedPasswordFile = lib.mkDefault hostSpec.rootHashedPasswordFile;
    })
    # Whose number is whose, who this machine is, and what it has said.
    (persistence.directories [
      "/var/lib/nixos"
      "/var/lib/systemd"
      "/var/log"
    ])
    (persistence.files [ "/etc/machine-id" ])
  ];
}
