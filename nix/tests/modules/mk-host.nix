# SPDX-License-Identifier: Apache-2.0
# Copyright The NixFleet Authors.
#
# Whole hosts by mkHost, over the stubs.
h:
let
  inherit (h) lib index;
  library = import ../../lib;

  system = class: { modules, specialArgs ? { } }: h.evaluate { inherit class modules specialArgs; };
  # Both are inert until they are configured.
  inputs = {
    marker = "the framework's";
    disko.nixosModules.disko.options.disko.devices = lib.mkOption { default = { }; };
    impermanence.nixosModules.impermanence = h.stubs.impermanence;
  };
  mkHost = library.mkHost {
    inherit inputs lib;
    nixosSystem = system "nixos";
    darwinSystem = system "darwin";
    modules = {
      inherit (index) hostSpec;
      nixos = map (n: index.nixos.modules.${n}) index.nixos.order ++ [ h.stubs.newHarmonia ];
      darwin = map (n: index.darwin.modules.${n}) index.darwin.order;
      nixosVm = index.nixos.vm;
    };
  };
  linux = args: (mkHost ({ hostName = "web-01"; platform = "x86_64-linux"; stateVersion = "26.05"; } // args)).config;
  mac = args: (mkHost ({ hostName = "mac-01"; platform = "aarch64-darwin"; stateVersion = 6; } // args)).config;
  agent = {
    services.nixfleet-agent = {
      enable = true;
      server = "https://fleet.example.org:8443";
      caFile = "/etc/nixfleet/gateway-ca.crt";
      trustedPublicKeys = [ "fleet-cache-1:sglB1S9VqHHsZ9c4m3mBn3nYRNmmn5JL0kl6rm2aEGQ=" ];
    };
  };
in
h.prefixed "mkHost" {
  "NixOS: a host" = {
    expr = let c = linux { }; in [ c.system.stateVersion c.nixpkgs.hostPlatform c.networking.hostName c.hostSpec.isDarwin c.services.openssh.enable ];
    expected = [ "26.05" "x86_64-linux" "web-01" false true ];
  };
  "darwin: a host" = {
    expr = let c = mac { }; in [ c.system.stateVersion c.nixpkgs.hostPlatform c.networking.hostName c.hostSpec.isDarwin ];
    expected = [ 6 "aarch64-darwin" "mac-01" true ];
  };
  "every scope is there, and off" = {
    expr = lib.mapAttrs (_: s: s.enable) (h.ours (linux { })).services;
    expected = lib.genAttrs [ "nixfleet-agent" "nixfleet-cache" "nixfleet-cache-server" "nixfleet-control-plane" "nixfleet-microvm-host" ] (_: false);
  };
  "scopes that are off add nothing to the core" = {
    expr = h.same (linux { }) (h.configOf {
      modules = [
        index.nixos.modules.core
        h.stubs.newHarmonia
        h.stubs.impermanence
        { options.disko.devices = lib.mkOption { default = { }; }; }
        { hostSpec.hostName = "web-01"; system.stateVersion = "26.05"; }
      ];
    });
    expected = true;
  };
  "scopes can be on together" = {
    expr = h.messages (linux {
      modules = [
        agent
        {
          services.nixfleet-control-plane.enable = true;
          services.nixfleet-cache-server = { enable = true; signingKeyFile = "/run/secrets/cache"; };
          services.nixfleet-cache = { enable = true; url = "http://127.0.0.1:5000"; publicKey = "c:sglB1S9VqHHsZ9c4m3mBn3nYRNmmn5JL0kl6rm2aEGQ="; };
          services.nixfleet-microvm-host.enable = true;
        }
      ];
    });
    expected = [ ];
  };
  "the agent is called like the host" = {
    expr = map (c: c.services.nixfleet-agent.hostName) [ (linux { modules = [ agent ]; }) (mac { modules = [ agent ]; }) ];
    expected = [ "web-01" "mac-01" ];
  };
  "hostSpec: values reach the host, and a module of the host wins over them" = {
    expr = map (modules: (linux { hostSpec = { timeZone = "Europe/Paris"; networking.interface = "eth0"; }; inherit modules; }).hostSpec) [ [ ] [ { hostSpec.timeZone = "Asia/Tokyo"; hostSpec.networking.interface = "eth1"; } ] ];
    expected =
      let
        spec = timeZone: interface: {
          hostName = "web-01";
          userName = null;
          home = null;
          inherit timeZone;
          locale = "en_US.UTF-8";
          keyboardLayout = "us";
          rootHashedPasswordFile = null;
          networking = { inherit interface; };
          secretsPath = null;
          isDarwin = false;
        };
      in
      [ (spec "Europe/Paris" "eth0") (spec "Asia/Tokyo" "eth1") ];
  };
  "hostSpec: no module changes the name" = {
    expr = (linux { modules = [ { hostSpec.hostName = "other"; } ]; }).hostSpec.hostName;
    expected = "web-01";
  };
  "a fleet declares facts of its own, for values of mkHost" = {
    expr = (linux { hostSpec.rack = 7; modules = [ { options.hostSpec.rack = lib.mkOption { type = lib.types.int; }; } ]; }).hostSpec.rack;
    expected = 7;
  };
  "stateVersion: a module of the host wins" = {
    expr = (linux { modules = [ { system.stateVersion = "25.11"; } ]; }).system.stateVersion;
    expected = "25.11";
  };
  "the platform cannot be changed by what a generator wrote" = {
    expr = (linux { modules = [ { nixpkgs.hostPlatform = lib.mkDefault "aarch64-linux"; } ]; }).nixpkgs.hostPlatform;
    expected = "x86_64-linux";
  };
  "the framework's inputs reach modules, in imports too" = {
    expr = (linux { modules = [ ({ inputs, ... }: { imports = [ { networking.hostName = "${inputs.marker}"; } ]; }) ]; }).networking.hostName;
    expected = "the framework's";
  };
  "the fleet's own arguments reach modules, in imports too" = {
    expr = (linux { specialArgs.fleet = { networking.hostName = "from-fleet"; }; modules = [ ({ fleet, ... }: { imports = [ fleet ]; }) ]; }).networking.hostName;
    expected = "from-fleet";
  };
  "_module.args reach modules, outside imports" = {
    expr = (linux { modules = [ { _module.args.fleet = "from-args"; } ({ fleet, ... }: { networking.hostName = fleet; }) ]; }).networking.hostName;
    expected = "from-args";
  };
  "a module of the other class is refused" = {
    expr = map h.throws [
      (linux { modules = [ index.darwin.modules.agent ]; }).networking.hostName
      (mac { modules = [ index.nixos.modules.agent ]; }).networking.hostName
    ];
    expected = [ true true ];
  };
  "isVm: a machine of QEMU" = {
    expr =
      let
        c = linux { isVm = true; };
      in
      [
        (lib.elem "virtio_blk" c.boot.initrd.availableKernelModules)
        c.boot.loader.grub.device
        c.fileSystems."/".device
        c.networking.useDHCP
        c.services.qemuGuest.enable
        c.services.spice-vdagentd.enable
        c.environment.variables.LIBGL_ALWAYS_SOFTWARE
      ];
    expected = [ true "/dev/vda" "/dev/disk/by-label/nixos" true true true "1" ];
  };
  "isVm: off, none of it" = {
    expr = let c = linux { }; in [ c.boot.initrd.availableKernelModules c.services.qemuGuest.enable c.networking.useDHCP c.environment.variables ];
    expected = [ [ ] false false { } ];
  };
  "isVm: a module of the host wins" = {
    expr =
      let
        c = linux {
          isVm = true;
          modules = [
            {
              boot.loader.grub.device = "nodev";
              fileSystems."/" = { device = "tmpfs"; fsType = "tmpfs"; };
              networking.useDHCP = false;
              services.qemuGuest.enable = false;
              services.spice-vdagentd.enable = false;
              environment.variables.LIBGL_ALWAYS_SOFTWARE = "0";
            }
          ];
        };
      in
      [ c.boot.loader.grub.device c.fileSystems."/".fsType c.networking.useDHCP c.services.qemuGuest.enable c.services.spice-vdagentd.enable c.environment.variables ];
    expected = [ "nodev" "tmpfs" false false false { LIBGL_ALWAYS_SOFTWARE = "0"; } ];
  };
  "manifests: of hosts that mkHost made" = {
    expr = map (i: [ i.metadata.name i.spec.platform ]) (library.manifests {
      nixosConfigurations.web-01.config = linux { modules = [ agent ]; };
      nixosConfigurations.off.config = linux { hostName = "off"; };
      darwinConfigurations.mac-01.config = mac { modules = [ agent ]; };
    }).items;
    expected = [ [ "mac-01" "aarch64-darwin" ] [ "web-01" "x86_64-linux" ] ];
  };
}
