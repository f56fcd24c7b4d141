# SPDX-License-Identifier: Apache-2.0
# Copyright The NixFleet Authors.
#
# flake.lib: the pure functions of nix/lib with this flake's inputs in them. It does not
# merge, so this is the only file that defines it.
{
  config,
  inputs,
  lib,
  ...
}:
let
  library = import ../lib;
  index = import ./_index.nix;

  modulesOf = kind: modules: map (name: modules.${name}) kind.order;
in
{
  flake.lib = {
    mkHost = library.mkHost {
      inherit inputs;
      inherit (inputs.nixpkgs) lib;
      inherit (inputs.nixpkgs.lib) nixosSystem;
      inherit (inputs.nix-darwin.lib) darwinSystem;
      modules = {
        inherit (index) hostSpec;
        nixos = modulesOf index.nixos config.flake.nixosModules;
        darwin = modulesOf index.darwin config.flake.darwinModules;
        nixosVm = index.nixos.vm;
      };
    };
    inherit (library) manifests;
  };
}
