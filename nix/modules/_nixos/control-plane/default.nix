# SPDX-License-Identifier: Apache-2.0
# Copyright The NixFleet Authors.
{
  config,
  lib,
  options,
  ...
}:
let
  cfg = config.services.nixfleet-control-plane;
  arguments = import ./arguments.nix { inherit lib; };
  persistence = import ../impermanence/lib.nix { inherit config lib options; };

  name = "nixfleet-control-plane";
  # systemd makes what is below /var/lib; any other directory is made by tmpfiles.
  stateDirectory = lib.removePrefix "/var/lib/" cfg.dataDir;
  inVarLib = stateDirectory != cfg.dataDir;

  ports = [
    cfg.listen.port
    cfg.gatewayListen.port
  ];
  privileged = lib.any (port: port < 1024) ports;
  badNames = lib.filter (
    n: builtins.match "[a-z0-9]([-a-z0-9.]*[a-z0-9])?|[0-9a-f:]+" n == null
  ) (cfg.listen.names ++ cfg.gatewayListen.names);

  # Quoted as systemd reads it, which also takes % and $ for its own.
  escape =
    arg: ''"${lib.replaceStrings [ "\\" "\"" "%" "$" ] [ "\\\\" "\\\"" "%%" "$$" ] arg}"'';
in
{
  _class = "nixos";

  imports = [
    ./options.nix
    ../impermanence
  ];

  config = lib.mkIf cfg.enable (
    lib.mkMerge [
      {
        assertions = [
          {
            assertion = builtins.match "/[^ ]+" cfg.dataDir != null && !(lib.hasPrefix builtins.storeDir cfg.dataDir);
            message = ''services.nixfleet-control-plane.dataDir is "${cfg.dataDir}"; write an absolute path outside the store, such as "/var/lib/nixfleet-control-plane"'';
          }
          {
            assertion = cfg.listen.port != cfg.gatewayListen.port;
            message = "services.nixfleet-control-plane: the Kubernetes API and the gateway both have port ${toString cfg.listen.port}; set listen.port or gatewayListen.port to another";
          }
          {
            assertion = badNames == [ ];
            message = ''services.nixfleet-control-plane: "${lib.concatStringsSep ''", "'' badNames}" in listen.names or gatewayListen.names is neither a DNS name in lower case nor an IP address; write it without scheme and port, such as "fleet.example.org"'';
          }
        ]
        ++ persistence.assertions {
          what = "services.nixfleet-control-plane";
          paths = [
            {
              path = cfg.dataDir;
              why = "the fleet's objects and the authorities of all certificates are in it";
            }
          ];
        };

        users.users.${name} = {
          isSystemUser = true;
          group = name;
          description = "NixFleet control plane";
        };
        users.groups.${name} = { };

        networking.firewall.allowedTCPPorts = lib.mkIf cfg.openFirewall [ cfg.gatewayListen.port ];

        systemd.tmpfiles.rules = lib.mkIf (!inVarLib) [ "d ${cfg.dataDir} 0700 ${name} ${name} -" ];

        systemd.services.${name} = {
          description = "NixFleet control plane";
          documentation = [ "https://github.com/nixfleet/nixfleet" ];
          wantedBy = [ "multi-user.target" ];
          # It may be told to listen on an address that comes with the network.
          wants = [ "network-online.target" ];
          after = [ "network-online.target" ];
          unitConfig = {
            StartLimitIntervalSec = 0;
            RequiresMountsFor = [ cfg.dataDir ];
          };
          serviceConfig = {
            # It says when it is ready, after minutes on a slow disk the first time.
            Type = "notify";
            TimeoutStartSec = "10min";
            ExecStart = lib.concatStringsSep " " (
              [ "${cfg.package}/bin/nixfleet-control-plane" ] ++ map escape (arguments cfg)
            );
            Restart = "always";
            RestartSec = 5;
            User = name;
            Group = name;
            UMask = "0077";
            LimitNOFILE = 65536;
          }
          // (
            if inVarLib then
              {
                StateDirectory = stateDirectory;
                StateDirectoryMode = "0700";
              }
            else
              { ReadWritePaths = [ cfg.dataDir ]; }
          )
          // import ./hardening.nix { inherit lib privileged; };
        };
      }
      (persistence.directories [
        {
          directory = cfg.dataDir;
          user = name;
          group = name;
          mode = "0700";
        }
      ])
    ]
  );
}
