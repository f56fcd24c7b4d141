# SPDX-License-Identifier: Apache-2.0
# Copyright The NixFleet Authors.
#
# What NixOS and nix-darwin declare, as far as our modules touch it, by the same names and
# with defaults of their own: what our modules define must be in this list, or be refused as
# NixOS would refuse it.
{ lib }:
let
  inherit (lib) mkOption types;

  list =
    type:
    mkOption {
      type = types.listOf type;
      default = [ ];
    };
  value =
    type: default:
    mkOption { inherit type default; };

  # A package, or a file that one would write: only its path and text matter here.
  package = name: {
    type = "derivation";
    inherit name;
    outPath = "/nix/store/00000000000000000000000000000000-${name}";
  };

  pkgsFor = platform: {
    stdenv.hostPlatform.system = platform;
    nixfleet-agent = package "nixfleet-agent";
    nixfleet-control-plane = package "nixfleet-control-plane";
    hello = package "hello";
    writeText = name: text: package name // { inherit text; };
  };

  set = value (types.attrsOf types.anything) { };

  both = platform: {
    config._module.args.pkgs = pkgsFor platform;

    options = {
      assertions = list types.unspecified;
      environment.systemPackages = list types.unspecified;
      environment.etc = set;
      networking.hostName = value types.str "from-networking";
      nix = {
        enable = value types.bool true;
        package = value types.unspecified (package "nix");
        settings = {
          experimental-features = list types.str;
          substituters = list types.str;
          trusted-public-keys = list types.str;
        };
        gc.automatic = value types.bool false;
        gc.options = value types.str "";
        optimise.automatic = value types.bool false;
      };
      nixpkgs.hostPlatform = value types.str platform;
      system.stateVersion = value types.unspecified null;
      time.timeZone = value (types.nullOr types.str) null;
    };
  };

  nixos = {
    _class = "nixos";
    options = {
      boot.initrd.availableKernelModules = list types.str;
      boot.loader.grub.configurationLimit = value types.int 100;
      boot.loader.grub.device = value types.str "";
      boot.loader.systemd-boot.configurationLimit = value (types.nullOr types.int) null;
      console.keyMap = value types.str "us";
      environment.variables = set;
      fileSystems = mkOption {
        type = types.attrsOf (
          types.submodule {
            options = {
              device = value (types.nullOr types.str) null;
              fsType = value types.str "auto";
              neededForBoot = value types.bool false;
            };
          }
        );
        default = { };
      };
      i18n.defaultLocale = value types.str "en_US.UTF-8";
      networking = {
        fqdnOrHostName = value types.str "fqdn.example.org";
        firewall = {
          enable = value types.bool true;
          allowedTCPPorts = list types.port;
          interfaces = set;
        };
        nat = {
          enable = value types.bool false;
          externalInterface = value (types.nullOr types.str) null;
          internalInterfaces = list types.str;
        };
        useDHCP = value types.bool false;
      };
      nix.gc.dates = value types.str "03:15";
      services = {
        openssh.enable = value types.bool false;
        openssh.settings = set;
        qemuGuest.enable = value types.bool false;
        spice-vdagentd.enable = value types.bool false;
        xserver.xkb.layout = value types.str "us";
      };
      system.switch.enable = value types.bool true;
      systemd = {
        network = set;
        package = value types.unspecified (package "systemd");
        services = set;
        tmpfiles.rules = list types.str;
      };
      users.groups = set;
      users.users = set;
    };
  };

  darwin = {
    _class = "darwin";
    options = {
      launchd.daemons = set;
      security.pam.services.sudo_local.touchIdAuth = value types.bool false;
      system.primaryUser = value (types.nullOr types.str) null;
    };
  };
in
{
  inherit pkgsFor package;

  nixos = platform: [
    (both platform)
    nixos
  ];
  darwin = platform: [
    (both platform)
    darwin
  ];

  # The option that impermanence declares.
  impermanence = {
    options.environment.persistence = mkOption {
      type = types.attrsOf (
        types.submodule {
          options = {
            directories = list types.unspecified;
            files = list types.unspecified;
          };
        }
      );
      default = { };
    };
  };

  # harmonia as newer releases of NixOS have it, and as older ones do.
  newHarmonia.options.services.harmonia.cache = set;
  oldHarmonia.options.services.harmonia = {
    enable = value types.bool false;
    signKeyPaths = list types.str;
    settings = set;
  };
}
