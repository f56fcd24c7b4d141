# SPDX-License-Identifier: Apache-2.0
# Copyright The NixFleet Authors.
h:
let
  spec = hostSpec: (h.configOf {
    modules = [
      h.index.hostSpec
      { inherit hostSpec; }
    ];
  }).hostSpec;
in
h.prefixed "hostSpec" {
  "defaults" = {
    expr = spec { hostName = "web-01"; };
    expected = {
      hostName = "web-01";
      userName = null;
      home = null;
      timeZone = "UTC";
      locale = "en_US.UTF-8";
      keyboardLayout = "us";
      rootHashedPasswordFile = null;
      networking.interface = null;
      secretsPath = null;
      isDarwin = false;
    };
  };
  "every option can be set" = rec {
    expr = spec expected;
    expected = {
      hostName = "web-01";
      userName = "alice";
      home = "/srv/alice";
      timeZone = "Europe/Paris";
      locale = "fr_FR.UTF-8";
      keyboardLayout = "fr";
      rootHashedPasswordFile = "/run/secrets/root";
      networking.interface = "enp1s0";
      secretsPath = "/run/secrets";
      isDarwin = false;
    };
  };
  "a person has a home" = {
    expr = map (isDarwin: (spec {
      hostName = "a";
      userName = "alice";
      inherit isDarwin;
    }).home) [ false true ];
    expected = [ "/home/alice" "/Users/alice" ];
  };
  "there is no default for the name" = {
    expr = h.throws (spec { }).hostName;
    expected = true;
  };
  "what is not declared is refused" = {
    expr = h.throws (spec { hostName = "a"; rack = 7; });
    expected = true;
  };
  "a fleet declares facts of its own" = {
    expr = (h.configOf {
      modules = [
        h.index.hostSpec
        { options.hostSpec.rack = h.lib.mkOption { type = h.lib.types.int; }; }
        { hostSpec = { hostName = "a"; rack = 7; }; }
      ];
    }).hostSpec.rack;
    expected = 7;
  };
  "adds nothing to the system" = {
    expr = h.same (h.configOf { modules = [ h.index.hostSpec { hostSpec.hostName = "a"; } ]; }) (h.configOf { modules = [ ]; });
    expected = true;
  };
}
