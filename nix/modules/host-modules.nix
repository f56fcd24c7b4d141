# SPDX-License-Identifier: Apache-2.0
# Copyright The NixFleet Authors.
#
# The modules of hosts, exported by path. Those that run a program bring this flake's
# package of it, so that they need no overlay.
{ lib, self, ... }:
let
  index = import ./_index.nix;

  # The modules that run a program: their option below services and its package.
  programs = {
    agent = "nixfleet-agent";
    control-plane = "nixfleet-control-plane";
  };

  packageOf =
    program:
    { pkgs, ... }:
    {
      services.${program}.package = lib.mkDefault self.packages.${pkgs.stdenv.hostPlatform.system}.${program};
    };

  export =
    class: kind:
    let
      modules = lib.mapAttrs (
        name: path:
        {
          _class = class;
          # The same module by two ways is one module.
          key = "nixfleet#${class}Modules.${name}";
          _file = toString path;
          imports = [ path ] ++ lib.optional (programs ? ${name}) (packageOf programs.${name});
        }
      ) kind.modules;
    in
    modules
    // {
      # Everything that does nothing until it is enabled. "core" has opinions, and comes with
      # mkHost.
      default = {
        _class = class;
        key = "nixfleet#${class}Modules.default";
        imports = lib.attrValues (removeAttrs modules [ "core" ]);
      };
    };
in
{
  # Not every version of flake-parts knows darwinModules; what it does not know it takes as
  # it is.
  flake.nixosModules = export "nixos" index.nixos;
  flake.darwinModules = export "darwin" index.darwin;
}
