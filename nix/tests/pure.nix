# SPDX-License-Identifier: Apache-2.0
# Copyright The NixFleet Authors.
#
# Tests of what needs only builtins.
let
  run = import ./run.nix;
  prefixed =
    prefix: tests:
    builtins.listToAttrs (
      map (name: {
        name = "${prefix}: ${name}";
        value = tests.${name};
      }) (builtins.attrNames tests)
    );
in
run (
  prefixed "mkHost" (import ./pure/mk-host.nix)
  // prefixed "manifests" (import ./pure/manifests.nix)
  // prefixed "ipv4" (import ./pure/ipv4.nix)
  // prefixed "repository" (import ./pure/repository.nix)
)
