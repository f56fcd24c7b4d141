# SPDX-License-Identifier: Apache-2.0
# Copyright The NixFleet Authors.
#
# Types and tests that several modules use.
{ lib }:
let
  inherit (lib) types;
in
rec {
  # Whatever JSON can say. pkgs.formats has one too, but the documentation of the options is
  # generated without pkgs.
  json =
    let
      value =
        types.nullOr (
          types.oneOf [
            types.bool
            types.int
            types.float
            types.str
            (types.attrsOf value)
            (types.listOf value)
          ]
        )
        // {
          description = "JSON value";
        };
    in
    value;

  # A list as a sentence has it: "a", "b".
  quoted = lib.concatMapStringsSep ", " (s: "\"${s}\"");

  # True for what would put a secret into the store, or has it there.
  inStore = path: builtins.isPath path || lib.hasPrefix builtins.storeDir (toString path);
}
