# SPDX-License-Identifier: Apache-2.0
# Copyright The NixFleet Authors.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib) mkOption types;
in
{
  _class = "nixos";

  options.services.nixfleet-control-plane = {
    enable = mkOption {
      type = types.bool;
      default = false;
      description = ''
        Whether this host runs a control plane: a Kubernetes API with its storage, NixFleet's
        controllers and the gateway that agents connect to, in one process and without a
        cluster.

        Once it runs, `admin.kubeconfig` in the data directory is for kubectl, and
        `pki/gateway-ca.crt` is what agents have to trust.
      '';
    };

    package = mkOption {
      type = types.package;
      default = pkgs.nixfleet-control-plane;
      defaultText = lib.literalExpression "pkgs.nixfleet-control-plane";
      description = ''
        The package of the control plane. Modules that come from the flake bring the flake's
        own; elsewhere `pkgs` needs the flake's overlay.
      '';
    };

    dataDir = mkOption {
      type = types.str;
      default = "/var/lib/nixfleet-control-plane";
      description = ''
        Directory for everything that has to survive a restart: the objects, the certificates
        and the keys of their authorities. Whoever can read it owns the fleet.
      '';
    };

    listen = {
      address = mkOption {
        type = types.str;
        default = "127.0.0.1";
        example = "0.0.0.0";
        description = "IP address that the Kubernetes API listens on. Agents never use it.";
      };
      port = mkOption {
        type = types.port;
        default = 6443;
        description = "TCP port of the Kubernetes API.";
      };
      names = mkOption {
        type = types.listOf types.str;
        default = [ ];
        example = [ "api.fleet.example.org" ];
        description = ''
          Further DNS names and IP addresses that people reach the API by, for its certificate.
        '';
      };
    };

    gatewayListen = {
      address = mkOption {
        type = types.str;
        default = "0.0.0.0";
        description = "IP address that the gateway listens on for agents; `0.0.0.0` is all of IPv4, `::` is everything.";
      };
      port = mkOption {
        type = types.port;
        default = 8443;
        description = "TCP port of the gateway.";
      };
      names = mkOption {
        type = types.listOf types.str;
        default = [ config.networking.fqdnOrHostName ];
        defaultText = lib.literalExpression "[ config.networking.fqdnOrHostName ]";
        example = [ "fleet.example.org" ];
        description = ''
          DNS names and IP addresses that agents reach the gateway by, for its certificate: the
          name in `services.nixfleet-agent.server` must be one of them.
        '';
      };
    };

    openFirewall = mkOption {
      type = types.bool;
      default = false;
      description = ''
        Whether to open the port of the gateway in the firewall. That of the Kubernetes API
        stays as it is: open `networking.firewall.allowedTCPPorts` yourself where people reach
        it from other machines.
      '';
    };

    hostOfflineAfterSeconds = mkOption {
      type = types.ints.between 1 86400;
      default = 180;
      description = ''
        How many seconds a host may be silent before it counts as offline. Agents say that
        they are there once a minute.
      '';
    };

    metricsListen = mkOption {
      type = types.nullOr types.str;
      default = null;
      example = "127.0.0.1:8080";
      description = "host:port that serves metrics for Prometheus, over plain HTTP. Null: none does.";
    };

    extraArgs = mkOption {
      type = types.listOf types.str;
      default = [ ];
      example = [
        "--logging-format=json"
        "-v=2"
      ];
      description = "Further flags; `nixfleet-control-plane --help` lists them.";
    };
  };
}
