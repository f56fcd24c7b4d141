# SPDX-License-Identifier: Apache-2.0
# Copyright The NixFleet Authors.
#
# The health checks that a system carries.
{ lib, ... }:
let
  inherit (lib) mkOption types;

  checks =
    {
      description,
      example,
      options,
    }:
    mkOption {
      type = types.attrsOf (
        types.submodule {
          options = options // {
            timeoutSeconds = mkOption {
              type = types.ints.between 1 1800;
              default = 60;
              description = ''
                For how many seconds after an activation the check may fail before the host goes
                back; it is tried every second.
              '';
            };
          };
        }
      );
      default = { };
      inherit description example;
    };
in
{
  options.services.nixfleet-agent.healthChecks = {
    http = checks {
      description = ''
        HTTP requests by name. A check passes when a GET is answered with the right status;
        redirects are not followed.
      '';
      example = {
        web.url = "http://127.0.0.1:8080/healthz";
      };
      options = {
        url = mkOption {
          type = types.strMatching "https?://.+";
          example = "http://127.0.0.1:8080/healthz";
          description = "What is asked for.";
        };
        expectedStatus = mkOption {
          type = types.ints.between 100 599;
          default = 200;
          description = "The status code that passes.";
        };
        skipTLSVerify = mkOption {
          type = types.bool;
          default = false;
          description = "Whether any certificate will do, for a service on this host that has one for another name.";
        };
      };
    };

    tcp = checks {
      description = "TCP connections by name. A check passes when the connection is accepted.";
      example = {
        database.address = "127.0.0.1:5432";
      };
      options.address = mkOption {
        type = types.strMatching ".+:[0-9]+";
        example = "127.0.0.1:5432";
        description = "Where to, as host:port.";
      };
    };

    exec = checks {
      description = ''
        Commands by name. A check passes when its command exits with 0; no shell reads its
        arguments. Commands can stand only here, in a system that is signed, and never in a
        Host.
      '';
      example = lib.literalExpression ''
        { replication.argv = [ (lib.getExe pkgs.check-replication) "--max-lag" "30" ]; }
      '';
      options = {
        argv = mkOption {
          type = types.nonEmptyListOf types.str;
          example = lib.literalExpression ''[ (lib.getExe pkgs.check-replication) "--max-lag" "30" ]'';
          description = "A program in the store, by its path, and its arguments.";
        };
        user = mkOption {
          type = types.nullOr (types.strMatching "[A-Za-z_][A-Za-z0-9_-]{0,30}");
          default = null;
          example = "postgres";
          description = ''
            The user that the command runs as. Null: a user that systemd makes for it, which may
            read what everybody may and write nothing.
          '';
        };
      };
    };
  };
}
