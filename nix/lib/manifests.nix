# SPDX-License-Identifier: Apache-2.0
# Copyright The NixFleet Authors.
#
# The Hosts of a fleet as a Kubernetes List, for Git or kubectl:
#
#   nix eval --json .#manifests | kubectl apply --server-side -f -
#
# where flake.nix has manifests = nixfleet.lib.manifests { inherit (self) nixosConfigurations; }.
# A host is in it when its agent is enabled. Its name, namespace, keys and tags are those of
# services.nixfleet-agent; a tag "role=web" becomes that label, a tag "canary" the label
# canary: "true".
{
  nixosConfigurations ? { },
  darwinConfigurations ? { },
}:
let
  fail = host: text: throw "manifests, host \"${host}\": ${text}";

  isKey =
    s:
    builtins.match "([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?" s
    != null;
  isValue = s: builtins.match "([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?" s != null;

  label =
    host: tag:
    let
      parts = builtins.match "([^=]*)=(.*)" tag;
      name = if parts == null then tag else builtins.elemAt parts 0;
      value = if parts == null then "true" else builtins.elemAt parts 1;
    in
    if isKey name && isValue value then
      { inherit name value; }
    else
      fail host "the tag \"${tag}\" cannot be a label; a tag is like \"canary\" or \"role=web\", of letters, digits, \"-\", \"_\" and \".\"";

  # listToAttrs keeps the first of two equal names, and nobody would notice.
  labels =
    host: tags:
    let
      all = map (label host) tags;
      values = builtins.groupBy (l: l.name) all;
      twice = builtins.filter (
        n: builtins.any (l: l.value != (builtins.head values.${n}).value) values.${n}
      ) (builtins.attrNames values);
    in
    if twice != [ ] then
      fail host "the tags give the label \"${builtins.head twice}\" two values"
    else
      builtins.listToAttrs all;

  platformOf =
    config:
    let
      platform = config.nixpkgs.hostPlatform;
    in
    platform.system or platform;

  manifest =
    config:
    let
      agent = config.services.nixfleet-agent;
      tags = labels agent.hostName agent.tags;
    in
    {
      apiVersion = "nixfleet.io/v1alpha1";
      kind = "Host";
      metadata = {
        name = agent.hostName;
        inherit (agent) namespace;
      }
      // (if tags == { } then { } else { labels = tags; });
      spec = {
        platform = platformOf config;
      }
      // (if agent.publicKeys == [ ] then { } else { identity = { inherit (agent) publicKeys; }; });
    };

  managed = builtins.filter (config: config.services.nixfleet-agent.enable or false) (
    map (system: system.config) (
      builtins.attrValues nixosConfigurations ++ builtins.attrValues darwinConfigurations
    )
  );
  hosts = map manifest managed;

  key = host: "${host.metadata.namespace}/${host.metadata.name}";
  byKey = builtins.groupBy key hosts;
  duplicates = builtins.filter (k: builtins.length byKey.${k} > 1) (builtins.attrNames byKey);
in
if duplicates != [ ] then
  fail (builtins.head duplicates) "more than one configuration has this name; set services.nixfleet-agent.hostName"
else
  {
    apiVersion = "v1";
    kind = "List";
    items = map (k: builtins.head byKey.${k}) (builtins.attrNames byKey);
  }
