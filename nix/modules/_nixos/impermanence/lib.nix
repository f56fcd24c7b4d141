# SPDX-License-Identifier: Apache-2.0
# Copyright The NixFleet Authors.
#
# For the module of a program that has something to keep.
{
  config,
  lib,
  options,
}:
let
  cfg = config.nixfleet.impermanence;
  available = options ? environment.persistence;

  # A definition for an option that does not exist fails even below a false mkIf. So a
  # module that is used without impermanence must not have the definition at all.
  persist = value: lib.optionalAttrs available { environment.persistence.${cfg.path} = value; };

  under = dir: path: path == dir || lib.hasPrefix "${lib.removeSuffix "/" dir}/" path;

  # Everything that is kept, whoever said so. An entry is a string or a set.
  kept = lib.concatMap (
    storage:
    map (d: d.directory or d) (storage.directories or [ ])
    ++ map (f: f.file or f) (storage.files or [ ])
  ) (lib.attrValues (config.environment.persistence or { }));

  survives =
    path:
    under cfg.path path || lib.any (k: under k path) kept;
in
{
  # directories and files are definitions that keep them, if the host forgets the rest.
  directories = directories: lib.mkIf cfg.enable (persist { inherit directories; });
  files = files: lib.mkIf cfg.enable (persist { inherit files; });

  # assertions { what, paths } has one for each { path, why }: it has to survive.
  assertions =
    { what, paths }:
    map (p: {
      assertion = !cfg.enable || survives p.path;
      message = ''${what}: nixfleet.impermanence is on and ${p.path} does not survive a reboot; ${p.why}. Add it to environment.persistence."${cfg.path}"'';
    }) paths;
}
