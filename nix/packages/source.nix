# SPDX-License-Identifier: Apache-2.0
# Copyright The NixFleet Authors.
#
# What the programs are built from, so that a commit to anything else rebuilds none of them.
let
  root = ../..;
  kept = [
    "api"
    "cmd"
    "config"
    "controllers"
    "go.mod"
    "go.sum"
    "internal"
  ];
  prefix = builtins.stringLength (toString root + "/");
  top = path: builtins.head (builtins.split "/" (builtins.substring prefix (-1) path));
in
builtins.path {
  name = "nixfleet-source";
  path = root;
  filter = path: _: builtins.elem (top path) kept;
}
