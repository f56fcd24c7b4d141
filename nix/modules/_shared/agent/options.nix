# SPDX-License-Identifier: Apache-2.0
# Copyright The NixFleet Authors.
#
# The options of the agent that NixOS and darwin share.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib) mkEnableOption mkOption types;
  shared = import ../options.nix { inherit lib; };
in
{
  imports = [ ./health-checks.nix ];

  options.services.nixfleet-agent = {
    enable = mkEnableOption "" // {
      description = ''
        Whether this host follows its fleet: its agent watches the host's own Host object and
        moves the host to the systems that rollouts assign to it, if their signature is by one
        of `trustedPublicKeys`.

        A host that hangs in an activation comes back on the old system by its next reboot.
        `systemd.settings.Manager.RuntimeWatchdogSec` (on releases before 25.11
        `systemd.watchdog.runtimeTime`) makes hardware that has a watchdog do that by itself.
      '';
    };

    package = mkOption {
      type = types.package;
      default = pkgs.nixfleet-agent;
      defaultText = lib.literalExpression "pkgs.nixfleet-agent";
      description = ''
        The package of the agent. Modules that come from the flake bring the flake's own;
        elsewhere `pkgs` needs the flake's overlay.
      '';
    };

    server = mkOption {
      type = types.str;
      example = "https://fleet.example.org:8443";
      description = "URL of the agent gateway, https only.";
    };

    namespace = mkOption {
      type = types.str;
      default = "default";
      example = "fleet";
      description = "Namespace of the Host.";
    };

    hostName = mkOption {
      type = types.str;
      default = config.networking.hostName;
      defaultText = lib.literalExpression "config.networking.hostName";
      example = "web-01";
      description = ''
        Name of the Host. It is also written into the system, as `/etc/nixfleet/host.json`: an
        agent refuses a system that was made for another host.
      '';
    };

    caFile = mkOption {
      type = types.path;
      example = lib.literalExpression "./gateway-ca.crt";
      description = ''
        Certificates, in PEM, that the gateway's certificate must lead to. No others are
        trusted. They are no secret: a path literal is copied into the store. The control
        plane of `services.nixfleet-control-plane` has it as `pki/gateway-ca.crt` in its data
        directory.
      '';
    };

    identityKeyFile = mkOption {
      type = types.nullOr types.path;
      default = null;
      example = "/etc/ssh/ssh_host_ed25519_key";
      description = ''
        The host's private key in OpenSSH format, as a string and never as a path literal. The
        Host must pin its public half in `spec.identity.publicKeys`. With the key of sshd the
        public half is known before the host's first boot.

        Null: the agent makes a key, `identity.key` in its state directory, and
        `nixfleet-agent identity` prints the line for the Host.
      '';
    };

    publicKeys = mkOption {
      type = types.listOf types.str;
      default = [ ];
      example = [
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEglTmpEZnDc//nH1q8CqEIZZZ+6QLaTvioblZTSJFqN root@web-01"
      ];
      description = ''
        Public halves of the host's key, for `lib.manifests`: it pins them in the Host. The
        agent does not read them.
      '';
    };

    trustedPublicKeys = mkOption {
      type = types.listOf types.str;
      example = [ "fleet-cache-1:sglB1S9VqHHsZ9c4m3mBn3nYRNmmn5JL0kl6rm2aEGQ=" ];
      description = ''
        The keys whose signature on a *system* is obeyed. There is no default, and the key of
        cache.nixos.org is refused: this list is what keeps a hijacked control plane from
        bringing systems of its own.

        To change the key make two releases: the first adds the new key here, the second is
        signed with it.
      '';
    };

    substitutionKeys = mkOption {
      type = types.listOf types.str;
      default = lib.optionals (config.nix.enable or true) (
        config.nix.settings.trusted-public-keys or [ ]
      );
      defaultText = lib.literalExpression "config.nix.settings.trusted-public-keys";
      example = [ "cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=" ];
      description = ''
        Further keys that the rest of a closure may be signed with. By default those that Nix
        itself trusts; none where Nix is managed by something else.
      '';
    };

    tags = mkOption {
      type = types.listOf types.str;
      default = [ ];
      example = [
        "role=web"
        "canary"
      ];
      description = ''
        Up to 32 words about the host. The agent shows them in `status.nodeInfo`, and
        `lib.manifests` makes labels of them, which rollouts select hosts by.
      '';
    };

    logLevel = mkOption {
      type = types.enum [
        "debug"
        "info"
        "warn"
        "error"
      ];
      default = "info";
      description = "What is logged: this and everything worse.";
    };

    settings = mkOption {
      type = types.submodule { freeformType = types.attrsOf shared.json; };
      default = { };
      example = {
        heartbeatSeconds = 30;
        logFormat = "json";
      };
      description = ''
        The agent's configuration file, whose keys the [agent's
        reference](agent.md#configuration) lists. The options above are written into it, and
        what is set here wins over them. The agent refuses keys that it does not know;
        `nixfleet-agent check` says so.
      '';
    };
  };
}
