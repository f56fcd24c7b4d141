# SPDX-License-Identifier: Apache-2.0
# Copyright The NixFleet Authors.
#
# The agent's module on NixOS and darwin. The sample of nix/schemas is what the agent itself
# is tested with.
h:
let
  inherit (h) lib index;
  sample = import ../../schemas/sample.nix;

  modules = class: [ index.${class}.modules.agent ];
  agent =
    class: settings:
    h.configOf {
      inherit class;
      modules = modules class ++ [ { services.nixfleet-agent = settings; } ];
    };
  # The least that has to be said.
  least = {
    enable = true;
    server = "https://fleet.example.org:8443";
    caFile = "/etc/nixfleet/gateway-ca.crt";
    trustedPublicKeys = [ "fleet-cache-1:sglB1S9VqHHsZ9c4m3mBn3nYRNmmn5JL0kl6rm2aEGQ=" ];
  };
  on = settings: agent "nixos" (lib.recursiveUpdate least settings);
  onDarwin = settings: agent "darwin" (lib.recursiveUpdate least settings);

  read = text: builtins.fromJSON (builtins.unsafeDiscardStringContext text);
  fileOf = config: read config.environment.etc."nixfleet/agent.yaml".source.text;
  checksOf =
    config: (builtins.fromJSON config.environment.etc."nixfleet/health-checks.json".text).checks;
  identityOf = config: builtins.fromJSON config.environment.etc."nixfleet/host.json".text;
  refused = settings: h.messages (on settings);
  unit = (on { }).systemd.services.nixfleet-agent;
  options = class: lib.attrNames (agent class least).services.nixfleet-agent;
  says = message: settings: {
    expr = refused settings;
    expected = [ message ];
  };
  key = n: "key-${toString n}:sglB1S9VqHHsZ9c4m3mBn3nYRNmmn5JL0kl6rm2aEGQ=";
in
h.prefixed "agent" (
  {
    "off, it adds nothing" = {
      expr = map (class: h.same (agent class { }) (h.configOf { inherit class; modules = [ ]; })) [
        "nixos"
        "darwin"
      ];
      expected = [
        true
        true
      ];
    };
    "off, nothing has to be said" = {
      expr = (agent "nixos" { }).assertions;
      expected = [ ];
    };
    "on, the least is enough" = {
      expr = h.messages (on { }) ++ h.messages (onDarwin { });
      expected = [ ];
    };
    "both platforms have the same options" = {
      expr = options "nixos";
      expected = options "darwin";
    };
    "defaults" = {
      expr = removeAttrs (on { }).services.nixfleet-agent [
        "package"
        "settings"
        "enable"
        "server"
        "caFile"
        "trustedPublicKeys"
      ];
      expected = {
        namespace = "default";
        hostName = "from-networking";
        identityKeyFile = null;
        publicKeys = [ ];
        substitutionKeys = [ ];
        tags = [ ];
        logLevel = "info";
        healthChecks = {
          systemd = { };
          http = { };
          tcp = { };
          exec = { };
        };
      };
    };
    "what has no default has to be set" = {
      expr =
        map
          (
            name:
            h.throws
              (agent "nixos" (removeAttrs least [ name ])).environment.etc."nixfleet/agent.yaml".source.text
          )
          [
            "server"
            "caFile"
          ];
      expected = [
        true
        true
      ];
    };

    "configuration: the least" = {
      expr = fileOf (on { });
      expected = {
        server = "https://fleet.example.org:8443";
        namespace = "default";
        hostName = "from-networking";
        caFile = "/etc/nixfleet/gateway-ca.crt";
        trustedPublicKeys = [ "fleet-cache-1:sglB1S9VqHHsZ9c4m3mBn3nYRNmmn5JL0kl6rm2aEGQ=" ];
        substitutionKeys = [ ];
        tags = [ ];
        logLevel = "info";
      };
    };
    "configuration: every option, as in the sample that the agent reads" = {
      expr = fileOf (agent "nixos" sample.options);
      expected = lib.importJSON ../../schemas/samples/agent.json;
    };
    "configuration: settings win over options, and bring what has none" = {
      expr = lib.getAttrs [ "logLevel" "heartbeatSeconds" "namespace" ] (fileOf (on {
        logLevel = "warn";
        settings = {
          logLevel = "debug";
          heartbeatSeconds = 30;
        };
      }));
      expected = {
        logLevel = "debug";
        heartbeatSeconds = 30;
        namespace = "default";
      };
    };
    "configuration: settings are JSON" = {
      expr = h.throws (fileOf (on { settings.x = y: y; }));
      expected = true;
    };
    "configuration: a certificate beside the module goes into the store" = {
      expr = lib.hasPrefix builtins.storeDir (fileOf (on { caFile = ../../schemas/samples/agent.json; })).caFile;
      expected = true;
    };
    "configuration: Nix's own keys are good for the rest of a closure" = {
      expr = map (
        class:
        (h.configOf {
          inherit class;
          modules = modules class ++ [
            {
              services.nixfleet-agent = least;
              nix.settings.trusted-public-keys = [ (key 1) ];
            }
          ];
        }).services.nixfleet-agent.substitutionKeys
      ) [ "nixos" "darwin" ];
      expected = [ [ (key 1) ] [ (key 1) ] ];
    };
    "configuration: not those of a Nix that something else manages" = {
      expr =
        (h.configOf {
          class = "darwin";
          modules = modules "darwin" ++ [
            {
              services.nixfleet-agent = least;
              nix.enable = false;
              nix.settings.trusted-public-keys = [ (key 1) ];
            }
          ];
        }).services.nixfleet-agent.substitutionKeys;
      expected = [ ];
    };
    "public keys are for manifests alone" = {
      expr = (fileOf (on { publicKeys = [ "ssh-ed25519 AAAA" ]; })) ? publicKeys;
      expected = false;
    };

    "host.json: the sample" = {
      expr = identityOf (agent "nixos" sample.options);
      expected = lib.importJSON ../../schemas/samples/host.json;
    };
    "host.json: on every platform" = {
      expr = map (
        platform:
        identityOf (h.configOf {
          class = if lib.hasSuffix "darwin" platform then "darwin" else "nixos";
          inherit platform;
          modules =
            modules (if lib.hasSuffix "darwin" platform then "darwin" else "nixos")
            ++ [ { services.nixfleet-agent = least; } ];
        })
      ) (lib.attrNames (import ../../lib/platforms.nix));
      expected = map (platform: {
        name = "from-networking";
        inherit platform;
      }) [ "aarch64-darwin" "aarch64-linux" "x86_64-darwin" "x86_64-linux" ];
    };
    "health checks: no file without checks" = {
      expr = (on { }).environment.etc ? "nixfleet/health-checks.json";
      expected = false;
    };
    "health checks: the sample" = {
      expr = { checks = checksOf (agent "nixos" sample.options); };
      expected = lib.importJSON ../../schemas/samples/health-checks.json;
    };
    "health checks: the sample on darwin" = {
      expr = { checks = checksOf (agent "darwin" sample.darwinOptions); };
      expected = lib.importJSON ../../schemas/samples/health-checks-darwin.json;
    };
    "health checks: units of systemd are not for darwin, services of launchd not for NixOS" = {
      expr = [
        (h.throws (onDarwin { healthChecks.systemd.web.units = [ "nginx.service" ]; }).services.nixfleet-agent.healthChecks)
        (h.throws (on { healthChecks.launchd.nix.labels = [ "org.nixos.nix-daemon" ]; }).services.nixfleet-agent.healthChecks)
      ];
      expected = [ true true ];
    };
    "health checks: what cannot be a check is refused by type" = {
      expr = map (healthChecks: h.throws (checksOf (on { inherit healthChecks; }))) [
        { http.web.url = "ftp://127.0.0.1"; }
        { http.web.url = "http://127.0.0.1"; http.web.expectedStatus = 99; }
        { http.web.url = "http://127.0.0.1"; http.web.timeoutSeconds = 0; }
        { http.web.url = "http://127.0.0.1"; http.web.timeoutSeconds = 1801; }
        { http.web = { }; }
        { tcp.db.address = "127.0.0.1"; }
        { exec.db.argv = [ ]; }
        { exec.db.argv = [ "/nix/store/x" ]; exec.db.user = "not a user"; }
        { systemd.web.units = [ ]; }
        { systemd.web.units = [ "nginx" ]; }
        { http.web.url = "http://127.0.0.1"; }
      ];
      expected = [ true true true true true true true true true true false ];
    };

    "unit: starts the agent with its own configuration" = {
      expr = unit.serviceConfig.ExecStart;
      expected = "${h.stubs.package "nixfleet-agent"}/bin/nixfleet-agent run --config ${h.stubs.package "nixfleet-agent.json"}";
    };
    "unit: is enabled, or the agent would refuse the system" = {
      expr = unit.wantedBy;
      expected = [ "multi-user.target" ];
    };
    "unit: is never stopped for an activation and never given up" = {
      expr = {
        inherit (unit) restartIfChanged stopIfChanged;
        inherit (unit.unitConfig) X-StopOnRemoval StartLimitIntervalSec;
        inherit (unit.serviceConfig) Restart RestartSec;
      };
      expected = {
        restartIfChanged = true;
        stopIfChanged = false;
        X-StopOnRemoval = false;
        StartLimitIntervalSec = 0;
        Restart = "always";
        RestartSec = 5;
      };
    };
    "unit: has no sandbox that an activation would inherit" = {
      expr = lib.attrNames unit.serviceConfig;
      expected = [
        "ExecStart"
        "OOMScoreAdjust"
        "Restart"
        "RestartSec"
        "StateDirectory"
        "StateDirectoryMode"
        "Type"
      ];
    };
    "unit: does not wait for a network" = {
      expr = lib.any (lib.hasPrefix "network-online") (unit.after ++ unit.wants or [ ] ++ unit.requires or [ ]);
      expected = false;
    };
    "unit: finds Nix and systemd" = {
      expr = map (p: p.name) unit.path;
      expected = [ "nix" "systemd" ];
    };
    "unit: state that only root may read" = {
      expr = { inherit (unit.serviceConfig) StateDirectory StateDirectoryMode; };
      expected = { StateDirectory = "nixfleet"; StateDirectoryMode = "0700"; };
    };
    "package: it is run, and there for people" = {
      expr =
        let
          config = on { package = h.stubs.package "mine"; };
        in
        [
          (lib.hasPrefix "${h.stubs.package "mine"}/bin/nixfleet-agent " config.systemd.services.nixfleet-agent.serviceConfig.ExecStart)
          (map (p: p.name) config.environment.systemPackages)
        ];
      expected = [ true [ "mine" ] ];
    };
    "darwin: a daemon that comes back and leaves its children alone" = {
      expr = (onDarwin { }).launchd.daemons.nixfleet-agent.serviceConfig;
      expected = {
        ProgramArguments = [
          "${h.stubs.package "nixfleet-agent"}/bin/nixfleet-agent"
          "run"
          "--config"
          "${h.stubs.package "nixfleet-agent.json"}"
        ];
        EnvironmentVariables.PATH = "${h.stubs.package "nix"}/bin:/nix/var/nix/profiles/default/bin:/usr/bin:/bin:/usr/sbin:/sbin";
        KeepAlive = true;
        RunAtLoad = true;
        AbandonProcessGroup = true;
        StandardOutPath = "/var/log/nixfleet-agent.log";
        StandardErrorPath = "/var/log/nixfleet-agent.log";
      };
    };
    "darwin: a Nix that something else manages" = {
      expr = (h.configOf {
        class = "darwin";
        modules = modules "darwin" ++ [
          {
            services.nixfleet-agent = least;
            nix.enable = false;
            nix.package = throw "nix.package is not defined without nix.enable";
          }
        ];
      }).launchd.daemons.nixfleet-agent.serviceConfig.EnvironmentVariables.PATH;
      expected = "/nix/var/nix/profiles/default/bin:/usr/bin:/bin:/usr/sbin:/sbin";
    };

    "refused: server" = says ''services.nixfleet-agent.server is "http://fleet.example.org"; write an https URL without user and parameters, such as "https://fleet.example.org:8443"'' { server = "http://fleet.example.org"; };
    "refused: other forms of server" = {
      expr = map (server: lib.length (refused { inherit server; })) [
        "https://"
        "https://a@b"
        "https://a/?x=1"
        "fleet.example.org:8443"
        "https://[2001:db8::1]:8443"
      ];
      expected = [ 1 1 1 1 0 ];
    };
    "refused: namespace" = says ''services.nixfleet-agent.namespace is "My Fleet"; write the name of a Kubernetes namespace: at most 63 lower-case letters, digits and "-"'' { namespace = "My Fleet"; };
    "refused: hostName" = says ''services.nixfleet-agent.hostName is "Web_01", which cannot be the name of a Host; write at most 200 lower-case letters, digits, "-" and "." (it is networking.hostName unless set)'' { hostName = "Web_01"; };
    "refused: no trusted key" = says ''services.nixfleet-agent.trustedPublicKeys is empty; write the public key of your own cache or signer, such as [ "fleet-cache-1:sglB...GQ=" ]: only systems signed by one of these keys are activated'' { trustedPublicKeys = [ ]; };
    "refused: what is no key" = says ''services.nixfleet-agent.trustedPublicKeys and substitutionKeys: "AAAA", "x:y" is no public key; write it as NAME:BASE64, the way nix-store --generate-binary-cache-key puts it into the public file'' {
      trustedPublicKeys = [ "AAAA" ];
      substitutionKeys = [ "x:y" ];
    };
    "refused: the key of the public cache" = says "services.nixfleet-agent.trustedPublicKeys must not have the key of cache.nixos.org: everything in the public cache would be a system for this host; put it into services.nixfleet-agent.substitutionKeys" {
      trustedPublicKeys = [ "cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=" ];
    };
    "refused: a private key in the store" = {
      expr = map (identityKeyFile: refused { inherit identityKeyFile; }) [
        ../../schemas/samples/host.json
        "${builtins.storeDir}/00000000000000000000000000000000-key"
        "/etc/ssh/ssh_host_ed25519_key"
      ];
      expected =
        let
          message = ''services.nixfleet-agent.identityKeyFile lies in the store, which everybody can read; write the path on the host as a string, such as "/etc/ssh/ssh_host_ed25519_key"'';
        in
        [ [ message ] [ message ] [ ] ];
    };
    "refused: too many tags" = says "services.nixfleet-agent.tags has 33 tags; at most 32 are allowed" { tags = map toString (lib.range 1 33); };
    "refused: a tag that is none" = says "services.nixfleet-agent.tags: a tag has 1 to 63 printable ASCII characters and neither begins nor ends with a space" { tags = [ " a" ]; };
    "refused: a tag twice" = says ''services.nixfleet-agent.tags has "a" more than once; remove the others'' { tags = [ "a" "b" "a" ]; };
    "refused: two checks of one name" = says ''services.nixfleet-agent.healthChecks has more than one check with the name "web"; names are shared by all types, so give each check one of its own'' {
      healthChecks = {
        http.web.url = "http://127.0.0.1";
        systemd.web.units = [ "nginx.service" ];
      };
    };
    "refused: a check without a name" = says ''services.nixfleet-agent.healthChecks: "" is no name for a check; a name has 1 to 63 characters'' { healthChecks.http."".url = "http://127.0.0.1"; };
    "refused: too many checks" = says "services.nixfleet-agent.healthChecks has 65 checks; at most 64 are allowed" {
      healthChecks.tcp = lib.genAttrs (map toString (lib.range 1 65)) (_: { address = "127.0.0.1:1"; });
    };
    "refused: a command outside the store" = says ''services.nixfleet-agent.healthChecks.exec: the program of "db" is not in the store; name it by its package, such as (lib.getExe pkgs.hello)'' {
      healthChecks.exec.db.argv = [ "/usr/bin/true" ];
    };
    "refused: a host without Nix" = {
      expr = h.messages (h.configOf { modules = modules "nixos" ++ [ { services.nixfleet-agent = least; nix.enable = false; } ]; });
      expected = [ "services.nixfleet-agent needs Nix on the host to fetch systems; do not set nix.enable = false" ];
    };
    "refused: a host that cannot switch" = {
      expr = h.messages (h.configOf { modules = modules "nixos" ++ [ { services.nixfleet-agent = least; system.switch.enable = false; } ]; });
      expected = [ "services.nixfleet-agent activates systems with switch-to-configuration; do not set system.switch.enable = false" ];
    };
  }
)
