# SPDX-License-Identifier: Apache-2.0
# Copyright The NixFleet Authors.
{ lib, self, ... }:
let
  commit = self.shortRev or self.dirtyShortRev or "unknown";
in
{
  flake.overlays.default = import ../packages/overlay.nix { inherit commit; };

  perSystem =
    { pkgs, system, ... }:
    {
      # The manager and the control plane are for Linux alone.
      packages = lib.filterAttrs (_: p: lib.elem system p.meta.platforms) (
        import ../packages { inherit commit pkgs; }
      );
    };
}
