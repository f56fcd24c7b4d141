# SPDX-License-Identifier: Apache-2.0
# Copyright The NixFleet Authors.
let
  inherit (import ../../lib/ipv4.nix) parse parseNetwork;
in
{
  "an address is a number" = {
    expr = map parse [
      "0.0.0.0"
      "10.88.0.1"
      "255.255.255.255"
    ];
    expected = [
      0
      173539329
      4294967295
    ];
  };
  "what is no address is null" = {
    expr = map parse [
      ""
      "10.0.0"
      "10.0.0.256"
      "10.0.0.01"
      "10.0.0.1/24"
      "10.0.0.x"
      "fe80::1"
      "10.0.0.9999999999999999999"
    ];
    expected = [
      null
      null
      null
      null
      null
      null
      null
      null
    ];
  };
  "a network has a first and a last address" = {
    expr = parseNetwork "10.88.0.1/24";
    expected = {
      address = 173539329;
      prefixLength = 24;
      first = 173539328;
      last = 173539583;
    };
  };
  "a prefix may end inside an octet" = {
    expr = removeAttrs (parseNetwork "192.168.7.9/20") [ "address" ];
    expected = {
      prefixLength = 20;
      first = parse "192.168.0.0";
      last = parse "192.168.15.255";
    };
  };
  "all of IPv4 is a network, and one address is" = {
    expr = map (s: (parseNetwork s).last) [
      "0.0.0.0/0"
      "10.0.0.1/32"
    ];
    expected = [
      4294967295
      167772161
    ];
  };
  "what is no network is null" = {
    expr = map parseNetwork [
      "10.88.0.1"
      "10.88.0.1/33"
      "10.88.0.300/24"
      "/24"
      "10.88.0.1/24/24"
    ];
    expected = [
      null
      null
      null
      null
      null
    ];
  };
}
