# SPDX-License-Identifier: Apache-2.0
# Copyright The NixFleet Authors.
#
# The platforms that a host can have, each with the class of its modules.
{
  x86_64-linux = "nixos";
  aarch64-linux = "nixos";
  x86_64-darwin = "darwin";
  aarch64-darwin = "darwin";
}
