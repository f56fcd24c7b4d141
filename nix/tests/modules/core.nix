# SPDX-License-Identifier: Apache-2.0
# Copyright The NixFleet Authors.
h:
let
  inherit (h) lib index;
  nixos = modules: h.configOf { modules = [ index.nixos.modules.core ] ++ modules; };
  darwin = modules: h.configOf { class = "darwin"; modules = [ index.darwin.modules.core ] ++ modules; };
  name = { hostSpec.hostName = "web-01"; };
  spec = hostSpec: { hostSpec = { hostName = "web-01"; } // hostSpec; };
in
h.prefixed "core" {
  "NixOS: what a host begins with" = {
    expr = removeAttrs (h.effect (nixos [ name ])) [ "environment" "fileSystems" "nixpkgs" "system" "systemd" "users" ];
    expected = {
      boot = {
        initrd.availableKernelModules = [ ];
        loader.grub = { configurationLimit = 20; device = ""; };
        loader.systemd-boot.configurationLimit = 20;
      };
      console.keyMap = "us";
      i18n.defaultLocale = "en_US.UTF-8";
      networking = (h.configOf { modules = [ ]; }).networking // { hostName = "web-01"; };
      nix = (h.configOf { modules = [ ]; }).nix // {
        settings = {
          experimental-features = [ "nix-command" "flakes" ];
          substituters = [ ];
          trusted-public-keys = [ ];
        };
        gc = { automatic = true; dates = "weekly"; options = "--delete-older-than 30d"; };
        optimise.automatic = true;
      };
      services = (h.configOf { modules = [ ]; }).services // {
        openssh = {
          enable = true;
          settings = {
            KbdInteractiveAuthentication = false;
            PasswordAuthentication = false;
            PermitRootLogin = "prohibit-password";
          };
        };
      };
      time.timeZone = "UTC";
    };
  };
  "NixOS: hostSpec says who the host is" = {
    expr =
      let
        config = nixos [ (spec { timeZone = "Europe/Paris"; locale = "fr_FR.UTF-8"; keyboardLayout = "fr"; }) ];
      in
      [ config.networking.hostName config.time.timeZone config.i18n.defaultLocale config.console.keyMap config.services.xserver.xkb.layout ];
    expected = [ "web-01" "Europe/Paris" "fr_FR.UTF-8" "fr" "fr" ];
  };
  "NixOS: root has the password of hostSpec, or none" = {
    expr = map (s: (nixos [ (spec s) ]).users.users) [ { } { rootHashedPasswordFile = "/run/secrets/root"; } ];
    expected = [ { } { root.hashedPasswordFile = "/run/secrets/root"; } ];
  };
  "NixOS: a host can have everything else" = {
    expr =
      let
        config = nixos [
          name
          {
            networking.hostName = "other";
            networking.firewall.enable = false;
            time.timeZone = "Asia/Tokyo";
            i18n.defaultLocale = "ja_JP.UTF-8";
            console.keyMap = "jp106";
            services.xserver.xkb.layout = "jp";
            boot.loader.systemd-boot.configurationLimit = null;
            boot.loader.grub.configurationLimit = 1;
            services.openssh.enable = false;
            services.openssh.settings.PasswordAuthentication = true;
            services.openssh.settings.KbdInteractiveAuthentication = true;
            services.openssh.settings.PermitRootLogin = "no";
            nix.optimise.automatic = false;
            nix.gc.automatic = false;
            nix.gc.dates = "daily";
            nix.gc.options = "";
            nix.settings.experimental-features = lib.mkForce [ ];
          }
        ];
      in
      [
        config.networking.hostName
        config.networking.firewall.enable
        config.time.timeZone
        config.i18n.defaultLocale
        config.console.keyMap
        config.services.xserver.xkb.layout
        config.boot.loader.systemd-boot.configurationLimit
        config.boot.loader.grub.configurationLimit
        config.services.openssh
        config.nix.optimise.automatic
        config.nix.gc
        config.nix.settings.experimental-features
      ];
    expected = [
      "other"
      false
      "Asia/Tokyo"
      "ja_JP.UTF-8"
      "jp106"
      "jp"
      null
      1
      {
        enable = false;
        settings = {
          PasswordAuthentication = true;
          KbdInteractiveAuthentication = true;
          PermitRootLogin = "no";
        };
      }
      false
      { automatic = false; dates = "daily"; options = ""; }
      [ ]
    ];
  };
  "darwin: what a host begins with" = {
    expr =
      let
        config = darwin [ (spec { timeZone = "Europe/Paris"; }) ];
      in
      [ config.networking.hostName config.time.timeZone config.security.pam.services.sudo_local.touchIdAuth config.system.primaryUser config.nix.settings.experimental-features config.nix.gc config.nix.optimise.automatic ];
    expected = [ "web-01" "Europe/Paris" true null [ "nix-command" "flakes" ] { automatic = true; options = "--delete-older-than 30d"; } true ];
  };
  "darwin: the person of hostSpec is the primary user" = {
    expr = (darwin [ (spec { userName = "alice"; isDarwin = true; }) ]).system.primaryUser;
    expected = "alice";
  };
  "darwin: a Nix that something else manages is left alone" = {
    expr = (darwin [ name { nix.enable = false; } ]).nix;
    expected = (h.configOf { class = "darwin"; modules = [ { nix.enable = false; } ]; }).nix;
  };
  "darwin: a host can have everything else" = {
    expr =
      let
        config = darwin [
          (spec { userName = "alice"; })
          {
            networking.hostName = "other";
            time.timeZone = null;
            security.pam.services.sudo_local.touchIdAuth = false;
            system.primaryUser = "bob";
            nix.gc.automatic = false;
            nix.optimise.automatic = false;
          }
        ];
      in
      [ config.networking.hostName config.time.timeZone config.security.pam.services.sudo_local.touchIdAuth config.system.primaryUser config.nix.gc.automatic config.nix.optimise.automatic ];
    expected = [ "other" null false "bob" false false ];
  };
}
