# SPDX-License-Identifier: Apache-2.0
# Copyright The NixFleet Authors.
#
# Just as much of IPv4 as it takes to check a network's options before they reach a host.
let
  octet = s: builtins.match "(0|[1-9][0-9]{0,2})" s != null && builtins.fromJSON s <= 255;
  pow2 = n: if n == 0 then 1 else 2 * pow2 (n - 1);
in
rec {
  # parse "10.0.0.1" is the address as a number, or null if it is none.
  parse =
    s:
    let
      parts = builtins.match "([0-9]+)[.]([0-9]+)[.]([0-9]+)[.]([0-9]+)" s;
    in
    if parts == null || !(builtins.all octet parts) then
      null
    else
      builtins.foldl' (n: part: n * 256 + builtins.fromJSON part) 0 parts;

  # parseNetwork "10.0.0.1/24" is { address, prefixLength, first, last }, or null. first
  # and last are the network's own address and that of its broadcasts.
  parseNetwork =
    s:
    let
      parts = builtins.match "([0-9.]+)/([0-9]|[12][0-9]|3[0-2])" s;
      address = parse (builtins.elemAt parts 0);
      prefixLength = builtins.fromJSON (builtins.elemAt parts 1);
      size = pow2 (32 - prefixLength);
      first = address - (address - (address / size) * size);
    in
    if parts == null || address == null then
      null
    else
      {
        inherit address prefixLength first;
        last = first + size - 1;
      };
}
