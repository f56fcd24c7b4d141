# SPDX-License-Identifier: Apache-2.0
# Copyright The NixFleet Authors.
#
# One program of this repository.
{
  buildGoModule,
  commit,
  installShellFiles,
  lib,
  stdenv,
}:
let
  version = "0.0.0-dev";
in
{
  pname,
  description,
  platforms,
  vendorHash,
  # The directory of the Go module, and in it that of the program.
  module ? ".",
  package ? ".",
  ldflags ? [ ],
  # Whether "PROGRAM completion SHELL" prints a completion.
  completion ? true,
  # Whether kubectl is to complete the plugin's arguments.
  kubectlCompletion ? false,
}:
let
  # go names a program after its directory.
  built = baseNameOf (if package == "." then module else package);
  canRun = stdenv.buildPlatform.canExecute stdenv.hostPlatform;
in
buildGoModule {
  inherit pname version vendorHash;

  src = import ./source.nix;
  modRoot = module;
  subPackages = [ package ];
  # The hash is of the modules that go.sum names. That of a vendor directory would change
  # with the imports, and, where a module replaces another by ../.., with every commit.
  proxyVendor = true;

  env.CGO_ENABLED = 0;
  ldflags = [
    "-s"
    "-w"
    "-X github.com/nixfleet/nixfleet/internal/version.Version=v${version}"
    "-X github.com/nixfleet/nixfleet/internal/version.Commit=${commit}"
  ]
  ++ ldflags;

  nativeBuildInputs = [ installShellFiles ];
  postInstall =
    lib.optionalString (built != pname) ''
      mv "$out/bin/${built}" "$out/bin/${pname}"
    ''
    + lib.optionalString (completion && canRun) ''
      installShellCompletion --cmd ${pname} \
        --bash <("$out/bin/${pname}" completion bash) \
        --fish <("$out/bin/${pname}" completion fish) \
        --zsh <("$out/bin/${pname}" completion zsh)
    ''
    + lib.optionalString kubectlCompletion ''
      install -m 755 ${./kubectl_complete-nixfleet.sh} "$out/bin/kubectl_complete-nixfleet"
    '';

  meta = {
    inherit description platforms;
    homepage = "https://github.com/nixfleet/nixfleet";
    changelog = "https://github.com/nixfleet/nixfleet/blob/main/CHANGELOG.md";
    license = lib.licenses.asl20;
    mainProgram = pname;
    maintainers = [ ];
  };
}
