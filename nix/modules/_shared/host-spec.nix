# SPDX-License-Identifier: Apache-2.0
# Copyright The NixFleet Authors.
#
# Who a host is: facts that several modules read, and that no module acts upon here. A fleet
# adds facts of its own by declaring options below hostSpec in one of its modules.
{ config, lib, ... }:
let
  inherit (lib) mkOption types;
  cfg = config.hostSpec;
in
{
  options.hostSpec = {
    hostName = mkOption {
      type = types.str;
      example = "web-01";
      description = "Name of the host. `mkHost` sets it; it cannot be set to anything else there.";
    };

    userName = mkOption {
      type = types.nullOr types.str;
      default = null;
      example = "alice";
      description = ''
        Name of the person's account that this host is mainly used with, or null. No account
        is made for it.
      '';
    };

    home = mkOption {
      type = types.nullOr types.str;
      default =
        if cfg.userName == null then
          null
        else if cfg.isDarwin then
          "/Users/${cfg.userName}"
        else
          "/home/${cfg.userName}";
      defaultText = lib.literalMD "`/home/USERNAME`, `/Users/USERNAME` on darwin, null without `userName`";
      description = "Home directory of `userName`.";
    };

    timeZone = mkOption {
      type = types.str;
      default = "UTC";
      example = "Europe/Paris";
      description = "Time zone, by its name in the tz database.";
    };

    locale = mkOption {
      type = types.str;
      default = "en_US.UTF-8";
      example = "fr_FR.UTF-8";
      description = "Default locale. It has no effect on darwin.";
    };

    keyboardLayout = mkOption {
      type = types.str;
      default = "us";
      example = "fr";
      description = "Layout of the keyboard on the console. It has no effect on darwin.";
    };

    rootHashedPasswordFile = mkOption {
      type = types.nullOr types.str;
      default = null;
      example = "/run/agenix/root-password";
      description = ''
        File on the host with root's hashed password, as `mkpasswd` prints it, for logging in
        on the console. Null leaves root without a password; SSH takes keys only, either way.
        Write the path as a string: a path literal would copy the file into the store, which
        everybody can read. It has no effect on darwin.
      '';
    };

    networking.interface = mkOption {
      type = types.nullOr types.str;
      default = null;
      example = "enp1s0";
      description = ''
        The interface that leads to the network the host is reached by, for modules that have
        to name one. Null where no module does.
      '';
    };

    secretsPath = mkOption {
      type = types.nullOr types.str;
      default = null;
      example = "/run/agenix";
      description = ''
        Directory that the fleet's secrets lie in on the host at run time, for modules that
        are indifferent to how they get there.
      '';
    };

    isDarwin = mkOption {
      type = types.bool;
      default = false;
      description = "Whether the host runs darwin. `mkHost` sets it from the platform.";
    };
  };
}
