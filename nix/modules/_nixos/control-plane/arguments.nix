# SPDX-License-Identifier: Apache-2.0
# Copyright The NixFleet Authors.
#
# The command line of the control plane, from its options.
{ lib }:
let
  # An IPv6 address stands in brackets before a port.
  hostPort =
    listen:
    let
      address = if lib.hasInfix ":" listen.address then "[${listen.address}]" else listen.address;
    in
    "${address}:${toString listen.port}";
in
cfg:
[
  "--data-dir=${cfg.dataDir}"
  "--bind-address=${cfg.listen.address}"
  "--secure-port=${toString cfg.listen.port}"
]
++ map (name: "--api-name=${name}") cfg.listen.names
++ [ "--gateway-address=${hostPort cfg.gatewayListen}" ]
++ map (name: "--gateway-name=${name}") cfg.gatewayListen.names
++ [ "--host-offline-after=${toString cfg.hostOfflineAfterSeconds}s" ]
++ lib.optional (cfg.metricsListen != null) "--metrics-bind-address=${cfg.metricsListen}"
++ cfg.extraArgs
