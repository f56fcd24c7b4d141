# SPDX-License-Identifier: Apache-2.0
# Copyright The NixFleet Authors.
#
# The four programs. commit is what they say they were built from.
{
  pkgs,
  commit ? "unknown",
}:
let
  inherit (pkgs) lib;

  build = import ./build.nix {
    inherit commit lib;
    inherit (pkgs) buildGoModule installShellFiles stdenv;
  };

  # hack/update-vendor-hash.sh writes the hashes. null is one that nobody has computed: Nix
  # then refuses to build, and names the right one.
  hashes = lib.importJSON ./vendor-hashes.json;
  hashOf = module: if hashes.${module} == null then lib.fakeHash else hashes.${module};

  inherit (lib.platforms) darwin linux;
in
{
  nixfleet-agent = build {
    pname = "nixfleet-agent";
    package = "cmd/node-agent";
    vendorHash = hashOf "nixfleet";
    description = "Agent that moves a host to the systems of its fleet, and back if they fail";
    platforms = linux ++ darwin;
  };

  kubectl-nixfleet = build {
    pname = "kubectl-nixfleet";
    package = "cmd/kubectl-nixfleet";
    vendorHash = hashOf "nixfleet";
    kubectlCompletion = true;
    description = "Plugin of kubectl for fleets of NixOS hosts";
    platforms = linux ++ darwin;
  };

  nixfleet-manager = build {
    pname = "nixfleet-manager";
    package = "cmd/manager";
    vendorHash = hashOf "nixfleet";
    # It has flags alone, and no command that would print a completion.
    completion = false;
    description = "Controllers and agent gateway of NixFleet, for a Kubernetes cluster";
    platforms = linux;
  };

  nixfleet-control-plane = build {
    pname = "nixfleet-control-plane";
    module = "cmd/control-plane";
    vendorHash = hashOf "nixfleet-control-plane";
    ldflags = import ./kubernetes-version.nix { goMod = ../../cmd/control-plane/go.mod; };
    description = "NixFleet with a Kubernetes API and its storage, in one process";
    platforms = linux;
  };
}
