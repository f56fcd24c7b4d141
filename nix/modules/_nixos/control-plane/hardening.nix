# SPDX-License-Identifier: Apache-2.0
# Copyright The NixFleet Authors.
#
# What the control plane's unit is kept from: it reads and writes its data directory and
# talks to the network, and that is all.
{ lib, privileged }:
let
  capabilities = lib.optional privileged "CAP_NET_BIND_SERVICE";
in
{
  AmbientCapabilities = capabilities;
  # An empty list is written as an empty assignment, which means none.
  CapabilityBoundingSet = if capabilities == [ ] then "" else capabilities;
  DevicePolicy = "closed";
  LockPersonality = true;
  MemoryDenyWriteExecute = true;
  NoNewPrivileges = true;
  PrivateDevices = true;
  PrivateTmp = true;
  ProtectClock = true;
  ProtectControlGroups = true;
  ProtectHome = true;
  ProtectHostname = true;
  ProtectKernelLogs = true;
  ProtectKernelModules = true;
  ProtectKernelTunables = true;
  ProtectProc = "invisible";
  ProtectSystem = "strict";
  # Netlink tells a server the addresses of its machine.
  RestrictAddressFamilies = [
    "AF_INET"
    "AF_INET6"
    "AF_NETLINK"
    "AF_UNIX"
  ];
  RestrictNamespaces = true;
  RestrictRealtime = true;
  RestrictSUIDSGID = true;
  SystemCallArchitectures = "native";
  SystemCallErrorNumber = "EPERM";
  SystemCallFilter = [
    "@system-service"
    "~@privileged"
  ];
}
