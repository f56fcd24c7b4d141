# SPDX-License-Identifier: Apache-2.0
# Copyright The NixFleet Authors.
#
# What has to survive stands beside its program, and is there only where impermanence is.
h:
let
  inherit (h) lib index;
  all = lib.attrValues index.nixos.modules;
  storage = { fileSystems."/persist".neededForBoot = true; };
  on = { nixfleet.impermanence.enable = true; };
  name = { hostSpec.hostName = "web-01"; };
  agent = {
    services.nixfleet-agent = {
      enable = true;
      server = "https://fleet.example.org:8443";
      caFile = "/etc/nixfleet/gateway-ca.crt";
      trustedPublicKeys = [ "fleet-cache-1:sglB1S9VqHHsZ9c4m3mBn3nYRNmmn5JL0kl6rm2aEGQ=" ];
    };
  };
  config = modules: h.configOf { modules = all ++ [ h.stubs.impermanence h.stubs.newHarmonia name ] ++ modules; };
  withoutModule = modules: h.configOf { modules = all ++ [ h.stubs.newHarmonia name ] ++ modules; };
  # One module with the option of impermanence, on.
  kept = module: modules: (h.configOf {
    modules = [ index.nixos.modules.${module} h.stubs.impermanence storage on ] ++ modules;
  }).environment.persistence."/persist" or null;
  key = path: { services.nixfleet-agent.identityKeyFile = path; };
in
h.prefixed "impermanence" {
  "defaults" = {
    expr = (config [ ]).nixfleet.impermanence;
    expected = { enable = false; path = "/persist"; };
  };
  "off, nothing is kept" = {
    expr = (config [ agent ]).environment.persistence;
    expected = { };
  };
  "every module evaluates without the option, on or off" = {
    expr = map (modules: (withoutModule modules).environment ? persistence) [ [ agent ] [ agent on storage ] ];
    expected = [ false false ];
  };
  "agent: its state" = {
    expr = kept "agent" [ agent ];
    expected = { directories = [ { directory = "/var/lib/nixfleet"; mode = "0700"; } ]; files = [ ]; };
  };
  "agent: nothing while it is off" = {
    expr = kept "agent" [ ];
    expected = null;
  };
  "control plane: its data" = {
    expr = (kept "control-plane" [ { services.nixfleet-control-plane = { enable = true; dataDir = "/srv/fleet"; }; } ]).directories;
    expected = [ { directory = "/srv/fleet"; user = "nixfleet-control-plane"; group = "nixfleet-control-plane"; mode = "0700"; } ];
  };
  "microvm host: its guests" = {
    expr = (kept "microvm-host" [ { services.nixfleet-microvm-host.enable = true; } ]).directories;
    expected = [ "/var/lib/microvms" ];
  };
  "core: who this machine is" = {
    expr = kept "core" [ name ];
    expected = {
      directories = [ "/var/lib/nixos" "/var/lib/systemd" "/var/log" ];
      files = [
        "/etc/machine-id"
        "/etc/ssh/ssh_host_ed25519_key"
        "/etc/ssh/ssh_host_ed25519_key.pub"
        "/etc/ssh/ssh_host_rsa_key"
        "/etc/ssh/ssh_host_rsa_key.pub"
      ];
    };
  };
  "another path" = {
    expr = lib.attrNames (config [ on agent { nixfleet.impermanence.path = "/nix/persist"; fileSystems."/nix".neededForBoot = true; } ]).environment.persistence;
    expected = [ "/nix/persist" ];
  };
  "all is well" = {
    expr = map (modules: h.messages (config ([ on agent ] ++ modules))) [
      [ storage ]
      [ storage (key "/etc/ssh/ssh_host_ed25519_key") ]
      [ storage (key "/persist/keys/host") ]
      [ storage (key "/etc/keys/host") { environment.persistence."/persist".directories = [ { directory = "/etc/keys"; } ]; } ]
      [ storage (key "/etc/keys/host") { environment.persistence."/other".files = [ { file = "/etc/keys/host"; } ]; } ]
      [ { nixfleet.impermanence.path = "/nix/persist"; fileSystems."/".neededForBoot = true; fileSystems."/nix".neededForBoot = true; } ]
    ];
    expected = [ [ ] [ ] [ ] [ ] [ ] [ ] ];
  };
  "refused: no module of impermanence" = {
    expr = lib.take 1 (h.messages (withoutModule [ on storage ]));
    expected = [ "nixfleet.impermanence.enable needs the module of impermanence, which mkHost brings along; elsewhere add inputs.impermanence.nixosModules.impermanence to the modules of the host" ];
  };
  "refused: the agent's state would be lost" = {
    expr = lib.drop 1 (h.messages (withoutModule [ on storage agent ]));
    expected = [ ''services.nixfleet-agent: nixfleet.impermanence is on and /var/lib/nixfleet does not survive a reboot; without its journal the agent would take an old order for a new one. Add it to environment.persistence."/persist"'' ];
  };
  "refused: a state directory elsewhere" = {
    expr = h.messages (config [ on storage agent { services.nixfleet-agent.settings.stateDir = "/srv/agent"; } ]);
    expected = [ ''services.nixfleet-agent: nixfleet.impermanence is on and /srv/agent does not survive a reboot; without its journal the agent would take an old order for a new one. Add it to environment.persistence."/persist"'' ];
  };
  "refused: a key that would be lost" = {
    expr = h.messages (config [ on storage agent (key "/etc/keys/host") ]);
    expected = [ ''services.nixfleet-agent: nixfleet.impermanence is on and /etc/keys/host does not survive a reboot; with another key the gateway would not know the host. Add it to environment.persistence."/persist"'' ];
  };
  "a name that only begins like a kept one is not kept" = {
    expr = lib.length (h.messages (config [ on storage agent (key "/var/lib/nixfleet-old/key") ]));
    expected = 1;
  };
  "refused: the control plane's data without impermanence" = {
    expr = lib.last (h.messages (withoutModule [ on storage { services.nixfleet-control-plane.enable = true; } ]));
    expected = ''services.nixfleet-control-plane: nixfleet.impermanence is on and /var/lib/nixfleet-control-plane does not survive a reboot; the fleet's objects and the authorities of all certificates are in it. Add it to environment.persistence."/persist"'';
  };
  "refused: storage on the root file system" = {
    expr = map (modules: h.messages (config ([ on ] ++ modules))) [ [ ] [ { fileSystems."/".neededForBoot = true; } ] ];
    expected =
      let
        message = ''nixfleet.impermanence.path is "/persist", which lies on the root file system and would be lost with it; define fileSystems."/persist"'';
      in
      [ [ message ] [ message ] ];
  };
  "refused: storage that is mounted too late" = {
    expr = h.messages (config [ on { fileSystems."/persist" = { }; } ]);
    expected = [ ''nixfleet.impermanence.path lies on fileSystems."/persist", which is mounted too late for what is kept there; set fileSystems."/persist".neededForBoot = true'' ];
  };
}
