# SPDX-License-Identifier: Apache-2.0
# Copyright The NixFleet Authors.
#
# Runs tests without any library. A test is { expr; expected; }; the result is
# { count; failures }, and no failure is an empty list.
tests:
let
  names = builtins.attrNames tests;
  # What throws has failed, and the other tests still run. Deep, because Nix is lazy.
  value =
    test:
    let
      tried = builtins.tryEval (builtins.deepSeq test.expr test.expr);
    in
    if tried.success then tried.value else "it threw";
  failed = name: value tests.${name} != tests.${name}.expected;
in
{
  count = builtins.length names;
  failures = map (name: {
    test = name;
    got = value tests.${name};
    inherit (tests.${name}) expected;
  }) (builtins.filter failed names);
}
