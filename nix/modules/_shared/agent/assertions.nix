# SPDX-License-Identifier: Apache-2.0
# Copyright The NixFleet Authors.
#
# What the agent would refuse when it starts is refused when the system is evaluated.
{ lib, cfg }:
let
  shared = import ../options.nix { inherit lib; };
  files = import ./files.nix { inherit lib; };

  option = name: "services.nixfleet-agent.${name}";
  matches = pattern: s: builtins.match pattern s != null;
  objectName = "[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
  publicKey = "[^: ]+:[A-Za-z0-9+/]{43}=";

  badKeys = lib.filter (k: !(matches publicKey k));
  duplicates = list: lib.unique (lib.filter (e: lib.count (o: o == e) list > 1) list);

  checks = files.healthChecks cfg;
  checkNames = map (c: c.name) checks;
  badCheckNames = lib.filter (n: n == "" || lib.stringLength n > 63) checkNames;
  outside = lib.filter (
    c: c.type == "exec" && !(lib.hasPrefix "${builtins.storeDir}/" (lib.head c.exec.argv))
  ) checks;
in
[
  {
    assertion = matches "https://[^/?#@]+(/[^?#]*)?" cfg.server;
    message = ''${option "server"} is "${cfg.server}"; write an https URL without user and parameters, such as "https://fleet.example.org:8443"'';
  }
  {
    assertion = matches "[a-z0-9]([-a-z0-9]*[a-z0-9])?" cfg.namespace && lib.stringLength cfg.namespace <= 63;
    message = ''${option "namespace"} is "${cfg.namespace}"; write the name of a Kubernetes namespace: at most 63 lower-case letters, digits and "-"'';
  }
  {
    assertion = matches objectName cfg.hostName && lib.stringLength cfg.hostName <= 200;
    message = ''${option "hostName"} is "${cfg.hostName}", which cannot be the name of a Host; write at most 200 lower-case letters, digits, "-" and "." (it is networking.hostName unless set)'';
  }
  {
    assertion = cfg.trustedPublicKeys != [ ];
    message = ''${option "trustedPublicKeys"} is empty; write the public key of your own cache or signer, such as [ "fleet-cache-1:sglB...GQ=" ]: only systems signed by one of these keys are activated'';
  }
  {
    assertion = badKeys (cfg.trustedPublicKeys ++ cfg.substitutionKeys) == [ ];
    message = ''${option "trustedPublicKeys"} and substitutionKeys: ${shared.quoted (badKeys (cfg.trustedPublicKeys ++ cfg.substitutionKeys))} is no public key; write it as NAME:BASE64, the way nix-store --generate-binary-cache-key puts it into the public file'';
  }
  {
    assertion = !(lib.any (lib.hasPrefix "cache.nixos.org-") cfg.trustedPublicKeys);
    message = ''${option "trustedPublicKeys"} must not have the key of cache.nixos.org: everything in the public cache would be a system for this host; put it into ${option "substitutionKeys"}'';
  }
  {
    assertion = cfg.identityKeyFile == null || !(shared.inStore cfg.identityKeyFile);
    message = ''${option "identityKeyFile"} lies in the store, which everybody can read; write the path on the host as a string, such as "/etc/ssh/ssh_host_ed25519_key"'';
  }
  {
    assertion = lib.length cfg.tags <= 32;
    message = ''${option "tags"} has ${toString (lib.length cfg.tags)} tags; at most 32 are allowed'';
  }
  {
    assertion = lib.all (t: matches "[!-~]([ -~]{0,61}[!-~])?" t) cfg.tags;
    message = ''${option "tags"}: a tag has 1 to 63 printable ASCII characters and neither begins nor ends with a space'';
  }
  {
    assertion = duplicates cfg.tags == [ ];
    message = ''${option "tags"} has ${shared.quoted (duplicates cfg.tags)} more than once; remove the others'';
  }
  {
    assertion = duplicates checkNames == [ ];
    message = ''${option "healthChecks"} has more than one check with the name ${shared.quoted (duplicates checkNames)}; names are shared by all types, so give each check one of its own'';
  }
  {
    assertion = badCheckNames == [ ];
    message = ''${option "healthChecks"}: ${shared.quoted badCheckNames} is no name for a check; a name has 1 to 63 characters'';
  }
  {
    assertion = lib.length checks <= 64;
    message = ''${option "healthChecks"} has ${toString (lib.length checks)} checks; at most 64 are allowed'';
  }
  {
    assertion = outside == [ ];
    message = ''${option "healthChecks.exec"}: the program of ${shared.quoted (map (c: c.name) outside)} is not in the store; name it by its package, such as (lib.getExe pkgs.hello)'';
  }
]
