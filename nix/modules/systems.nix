# SPDX-License-Identifier: Apache-2.0
# Copyright The NixFleet Authors.
{
  systems = builtins.attrNames (import ../lib/platforms.nix);
}
