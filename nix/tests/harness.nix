# SPDX-License-Identifier: Apache-2.0
# Copyright The NixFleet Authors.
#
# Evaluates modules with the real module system of nixpkgs' lib over stubs.
{ lib }:
let
  stubs = import ./stubs.nix { inherit lib; };
  index = import ../modules/_index.nix;

  evaluate =
    {
      class ? "nixos",
      platform ? (if class == "darwin" then "aarch64-darwin" else "x86_64-linux"),
      modules,
      specialArgs ? { },
    }:
    lib.evalModules {
      inherit class specialArgs;
      modules = stubs.${class} platform ++ modules;
    };

  configOf = args: (evaluate args).config;

  # The options that only our modules declare.
  ours = config: {
    hostSpec = config.hostSpec or null;
    nixfleet = config.nixfleet or null;
    services = lib.filterAttrs (n: _: lib.hasPrefix "nixfleet-" n) (config.services or { });
  };
  # A configuration without them: what a module adds to the system.
  effect =
    config:
    let
      services = lib.filterAttrs (n: _: !(lib.hasPrefix "nixfleet-" n)) (config.services or { });
    in
    removeAttrs config [
      "_module"
      "hostSpec"
      "nixfleet"
      "services"
      "assertions"
    ]
    // lib.optionalAttrs (services != { }) { inherit services; };

  # Options that are declared have defaults, so a comparison has to be with a module that
  # declares the same ones and defines nothing.
  same = a: b: builtins.toJSON (effect a) == builtins.toJSON (effect b);
in
{
  inherit
    configOf
    effect
    evaluate
    index
    lib
    ours
    same
    stubs
    ;

  # messages config are those of the assertions that do not hold.
  messages = config: map (a: a.message) (lib.filter (a: !a.assertion) config.assertions);

  # throws is true if a value cannot be computed.
  throws = value: !(builtins.tryEval (builtins.deepSeq value null)).success;

  # prefixed names tests after what they are of; the name of a test says both.
  prefixed =
    what: tests: lib.mapAttrs' (name: test: lib.nameValuePair "${what}: ${name}" test) tests;

  inherit (stubs) pkgsFor;
}
