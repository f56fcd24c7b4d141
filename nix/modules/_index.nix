# SPDX-License-Identifier: Apache-2.0
# Copyright The NixFleet Authors.
#
# The framework's modules by path, in the order in which mkHost injects them.
{
  hostSpec = ./_shared/host-spec.nix;

  nixos = {
    order = [
      "core"
      "agent"
      "control-plane"
      "cache-server"
      "cache"
      "microvm-host"
    ];
    modules = {
      core = ./_nixos/core;
      agent = ./_nixos/agent;
      control-plane = ./_nixos/control-plane;
      cache-server = ./_nixos/cache-server;
      cache = ./_nixos/cache;
      microvm-host = ./_nixos/microvm-host;
    };
    vm = ./_nixos/vm.nix;
  };

  darwin = {
    order = [
      "core"
      "agent"
    ];
    modules = {
      core = ./_darwin/core;
      agent = ./_darwin/agent;
    };
  };
}
