# SPDX-License-Identifier: Apache-2.0
# Copyright The NixFleet Authors.
#
# The one constructor of hosts: a nixosSystem or a darwinSystem by platform, with the
# framework's modules in it. Everything it needs is handed in, so that it can be tested
# without nixpkgs.
#
#   lib           mkDefault and mkForce are all that is used of it
#   inputs        the framework's inputs; modules get them as specialArgs.inputs
#   nixosSystem, darwinSystem
#                 nixpkgs.lib.nixosSystem and nix-darwin.lib.darwinSystem, or stand-ins
#   modules       { nixos, darwin }: the framework's modules in the order of injection;
#                 { nixosVm } is added for virtual machines
{
  lib,
  inputs,
  nixosSystem,
  darwinSystem,
  modules,
}:
let
  problems = import ./host-arguments.nix;
  platforms = import ./platforms.nix;

  checked =
    args:
    let
      found = problems args;
    in
    if found == [ ] then args else throw (builtins.concatStringsSep "\n" found);

  build =
    {
      hostName,
      platform,
      stateVersion,
      hostSpec ? { },
      modules ? [ ],
      specialArgs ? { },
      isVm ? false,
    }:
    let
      isDarwin = platforms.${platform} == "darwin";
      # Errors in a definition name the file that it stands in.
      inline = what: module: module // { _file = "mkHost of ${hostName} (${what})"; };
      identity =
        builtins.mapAttrs (_: lib.mkDefault) hostSpec
        // { hostName = lib.mkForce hostName; }
        // (if isDarwin then { isDarwin = lib.mkForce true; } else { });
      arguments = [
        (inline "stateVersion" { system.stateVersion = lib.mkDefault stateVersion; })
        (inline "platform" { nixpkgs.hostPlatform = platform; })
      ];
      values = inline "hostSpec" { hostSpec = identity; };
    in
    (if isDarwin then darwinSystem else nixosSystem) {
      specialArgs = specialArgs // { inherit inputs; };
      modules =
        arguments
        ++ (if isDarwin then framework.darwin values else framework.nixos values)
        ++ modules
        ++ (if isVm then [ framework.nixosVm ] else [ ]);
    };

  framework = {
    nixos =
      values:
      [
        modules.hostSpec
        values
        inputs.disko.nixosModules.disko
        inputs.impermanence.nixosModules.impermanence
      ]
      ++ modules.nixos;
    darwin =
      values:
      [
        modules.hostSpec
        values
      ]
      ++ modules.darwin;
    inherit (modules) nixosVm;
  };
in
args: build (checked args)
