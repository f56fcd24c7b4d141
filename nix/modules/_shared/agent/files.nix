# SPDX-License-Identifier: Apache-2.0
# Copyright The NixFleet Authors.
#
# What the agent reads, as values: its configuration, whom a system was made for, and the
# system's health checks. The schemas are in nix/schemas; the sample that both this and the
# agent are tested with is there, too.
{ lib }:
let
  check =
    type: name: value:
    let
      # What is null is left to the agent.
      settings = lib.filterAttrs (_: v: v != null) (removeAttrs value [ "timeoutSeconds" ]);
    in
    {
      inherit name type;
      inherit (value) timeoutSeconds;
      ${type} = settings;
    };
in
{
  # settings cfg are the keys that options stand for.
  settings =
    cfg:
    {
      inherit (cfg)
        server
        namespace
        hostName
        trustedPublicKeys
        substitutionKeys
        tags
        logLevel
        ;
      # Interpolation copies a path literal into the store.
      caFile = "${cfg.caFile}";
    }
    // lib.optionalAttrs (cfg.identityKeyFile != null) {
      identityKeyFile = toString cfg.identityKeyFile;
    };

  hostIdentity = cfg: platform: {
    name = cfg.hostName;
    inherit platform;
  };

  # healthChecks cfg is a list in a fixed order: by type, then by name.
  healthChecks =
    cfg:
    lib.concatLists (
      lib.mapAttrsToList (type: lib.mapAttrsToList (check type)) cfg.healthChecks
    );
}
