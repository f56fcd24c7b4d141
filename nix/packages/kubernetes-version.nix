# SPDX-License-Identifier: Apache-2.0
# Copyright The NixFleet Authors.
#
# Flags that tell Kubernetes its own version, which it learns when it is linked; without it
# clients cannot parse what the server says. The version is that of go.mod.
{ goMod }:
let
  lines = builtins.filter builtins.isString (builtins.split "\n" (builtins.readFile goMod));
  versions = builtins.filter (m: m != null) (
    map (builtins.match "[[:space:]]*k8s[.]io/kubernetes v([0-9]+)[.]([0-9]+)[.]([^ ]+).*") lines
  );
  version =
    if versions == [ ] then
      throw "${toString goMod} does not require k8s.io/kubernetes"
    else
      builtins.head versions;
  part = builtins.elemAt version;
in
[
  "-X k8s.io/component-base/version.gitVersion=v${part 0}.${part 1}.${part 2}"
  "-X k8s.io/component-base/version.gitMajor=${part 0}"
  "-X k8s.io/component-base/version.gitMinor=${part 1}"
]
