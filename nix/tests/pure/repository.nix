# SPDX-License-Identifier: Apache-2.0
# Copyright The NixFleet Authors.
#
# How the files are laid out.
let
  root = ../../modules;
  index = import (root + "/_index.nix");

  children = dir: builtins.attrNames (builtins.readDir dir);
  isNix = name: builtins.match ".*[.]nix" name != null;
  # What import-tree imports: here, everything at the top but what begins with "_".
  imported = builtins.filter (n: builtins.substring 0 1 n != "_") (children root);

  # The names that a module of flake-parts defines. Modules that are functions are only
  # called where flake-parts is at hand.
  flakePartsKeys = [
    "debug"
    "flake"
    "imports"
    "options"
    "perSystem"
    "systems"
    "transposition"
  ];
  functionArguments = [
    "config"
    "flake-parts-lib"
    "inputs"
    "lib"
    "options"
    "self"
    "withSystem"
  ];
  isFlakeModule =
    name:
    let
      module = import (root + "/${name}");
      keys =
        if builtins.isFunction module then
          { known = functionArguments; names = builtins.attrNames (builtins.functionArgs module); }
        else
          { known = flakePartsKeys; names = builtins.attrNames module; };
    in
    isNix name && builtins.all (n: builtins.elem n keys.known) keys.names;

  # Directories that are no module of their own but part of others.
  parts = [ "impermanence" ];
  modulesIn = dir: builtins.filter (n: !(builtins.elem n parts) && !(isNix n)) (children (root + dir));

  flake = import ../../../flake.nix;
  follows = builtins.filter (
    n: builtins.isAttrs (flake.inputs.${n}.inputs or null)
  ) (builtins.attrNames flake.inputs);
in
{
  "every file that import-tree imports is a module of flake-parts" = {
    expr = builtins.filter (n: !(isFlakeModule n)) imported;
    expected = [ ];
  };
  "modules of hosts are exported by name, all of them" = {
    expr = {
      nixos = builtins.attrNames index.nixos.modules;
      darwin = builtins.attrNames index.darwin.modules;
    };
    expected = {
      nixos = modulesIn "/_nixos";
      darwin = modulesIn "/_darwin";
    };
  };
  "all of them are injected" = {
    expr = {
      nixos = builtins.sort builtins.lessThan index.nixos.order;
      darwin = builtins.sort builtins.lessThan index.darwin.order;
    };
    expected = {
      nixos = builtins.attrNames index.nixos.modules;
      darwin = builtins.attrNames index.darwin.modules;
    };
  };
  "inputs follow one nixpkgs" = {
    expr = builtins.filter (
      n:
      let
        inputs = flake.inputs.${n}.inputs;
      in
      (inputs.nixpkgs.follows or inputs.nixpkgs-lib.follows or null) != "nixpkgs"
    ) follows;
    expected = [ ];
  };
  "an input without nixpkgs to follow is one of these" = {
    expr = builtins.filter (n: !(builtins.elem n follows)) (builtins.attrNames flake.inputs);
    expected = [
      "import-tree"
      "nixos-hardware"
      "nixpkgs"
    ];
  };
  "the version of Kubernetes is that of go.mod" = {
    expr = builtins.length (
      builtins.filter (
        flag: builtins.match "-X k8s.io/component-base/version.git(Version=v|Major=|Minor=)[0-9.]+" flag != null
      ) (import ../../packages/kubernetes-version.nix { goMod = ../../../cmd/control-plane/go.mod; })
    );
    expected = 3;
  };
}
