# SPDX-License-Identifier: Apache-2.0
# Copyright The NixFleet Authors.
{ commit }: final: _: import ./. {
  pkgs = final;
  inherit commit;
}
