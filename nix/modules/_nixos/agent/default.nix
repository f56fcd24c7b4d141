# SPDX-License-Identifier: Apache-2.0
# Copyright The NixFleet Authors.
{
  config,
  lib,
  options,
  pkgs,
  ...
}:
let
  cfg = config.services.nixfleet-agent;
  common = import ../../_shared/agent/config.nix { inherit config lib pkgs; };
  persistence = import ../impermanence/lib.nix { inherit config lib options; };

  # Where the agent keeps its state unless settings say otherwise.
  stateDir = "/var/lib/nixfleet";
in
{
  _class = "nixos";

  imports = [
    ./options.nix
    ../impermanence
  ];

  config = lib.mkIf cfg.enable (
    lib.mkMerge [
    common.module
    {
      assertions = [
        {
          assertion = config.nix.enable or true;
          message = "services.nixfleet-agent needs Nix on the host to fetch systems; do not set nix.enable = false";
        }
        {
          assertion = config.system.switch.enable or true;
          message = "services.nixfleet-agent activates systems with switch-to-configuration; do not set system.switch.enable = false";
        }
      ]
      ++ persistence.assertions {
        what = "services.nixfleet-agent";
        paths = [
          {
            path = cfg.settings.stateDir or stateDir;
            why = "without its journal the agent would take an old order for a new one";
          }
        ]
        ++ lib.optional (cfg.identityKeyFile != null) {
          path = toString cfg.identityKeyFile;
          why = "with another key the gateway would not know the host";
        };
      };

      systemd.services.nixfleet-agent = {
        description = "NixFleet agent";
        documentation = [ "https://github.com/nixfleet/nixfleet/blob/main/docs/reference/agent.md" ];
        wantedBy = [ "multi-user.target" ];
        # Not network-online.target: after a reboot in mid-attempt the agent has to put
        # things right whether there is a network or not.
        after = [
          "network.target"
          "nix-daemon.socket"
        ];
        path = [
          config.nix.package
          config.systemd.package
        ];

        # An activation restarts the agent at its end. Stopped at its beginning, it would
        # stay down if anything failed in between.
        restartIfChanged = true;
        stopIfChanged = false;
        unitConfig = {
          # A system without the agent is refused; one that gets here all the same must
          # not take the agent away before the host has gone back.
          X-StopOnRemoval = false;
          # There is no number of restarts after which a host should be left alone.
          StartLimitIntervalSec = 0;
        };

        # No sandbox. The agent writes the store, the profile and boot loaders, and what
        # it starts for an activation must not live in a view of the system of its own.
        serviceConfig = {
          Type = "exec";
          ExecStart = "${cfg.package}/bin/nixfleet-agent run --config ${common.configFile}";
          Restart = "always";
          RestartSec = 5;
          StateDirectory = "nixfleet";
          StateDirectoryMode = "0700";
          OOMScoreAdjust = -500;
        };
      };
    }
    (persistence.directories [
      {
        directory = stateDir;
        mode = "0700";
      }
    ])
    ]
  );
}
