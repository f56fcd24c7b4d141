# SPDX-License-Identifier: Apache-2.0
# Copyright The NixFleet Authors.
#
# The switch for hosts whose root file system is made anew at every boot. What has to
# survive stands beside the program that it belongs to, in the program's own module.
{
  config,
  lib,
  options,
  ...
}:
let
  inherit (lib) mkOption types;
  cfg = config.nixfleet.impermanence;

  # The file system that the storage lies on: the longest mount point above it.
  mounts = lib.filter (m: m == cfg.path || m == "/" || lib.hasPrefix "${m}/" cfg.path) (
    lib.attrNames config.fileSystems
  );
  mount = lib.foldl' (a: b: if lib.stringLength b > lib.stringLength a then b else a) "" mounts;
in
{
  _class = "nixos";

  options.nixfleet.impermanence = {
    enable = mkOption {
      type = types.bool;
      default = false;
      description = ''
        Whether the root file system of this host is made anew at every boot. What NixFleet's
        own modules need to survive is then kept in `path`, by the module of
        [impermanence](https://github.com/nix-community/impermanence), which `mkHost` brings
        along. How the root file system comes to be empty is not decided here.
      '';
    };

    path = mkOption {
      type = types.str;
      default = "/persist";
      example = "/nix/persist";
      description = ''
        Directory for what survives. It has to be on a file system of its own, or at least not
        on the root file system, with `neededForBoot = true`.
      '';
    };
  };

  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = options ? environment.persistence;
        message = "nixfleet.impermanence.enable needs the module of impermanence, which mkHost brings along; elsewhere add inputs.impermanence.nixosModules.impermanence to the modules of the host";
      }
      {
        assertion = mount != "" && mount != "/";
        message = ''nixfleet.impermanence.path is "${cfg.path}", which lies on the root file system and would be lost with it; define fileSystems."${cfg.path}"'';
      }
      {
        assertion = mount == "" || mount == "/" || config.fileSystems.${mount}.neededForBoot;
        message = ''nixfleet.impermanence.path lies on fileSystems."${mount}", which is mounted too late for what is kept there; set fileSystems."${mount}".neededForBoot = true'';
      }
    ];
  };
}
