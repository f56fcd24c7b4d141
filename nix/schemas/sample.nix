# SPDX-License-Identifier: Apache-2.0
# Copyright The NixFleet Authors.
#
# Options of services.nixfleet-agent that together say everything the module can write. What
# it writes for them is in samples: nix/tests compares it with the module's output, and
# schemas_test.go hands it to the agent.
let
  common = {
    enable = true;
    server = "https://fleet.example.org:8443";
    namespace = "fleet";
    hostName = "web-01";
    caFile = "/etc/nixfleet/gateway-ca.crt";
    identityKeyFile = "/etc/ssh/ssh_host_ed25519_key";
    publicKeys = [
      "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEglTmpEZnDc//nH1q8CqEIZZZ+6QLaTvioblZTSJFqN root@web-01"
    ];
    trustedPublicKeys = [ "fleet-cache-1:sglB1S9VqHHsZ9c4m3mBn3nYRNmmn5JL0kl6rm2aEGQ=" ];
    substitutionKeys = [ "cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=" ];
    tags = [
      "role=web"
      "canary"
    ];
    logLevel = "debug";
  };

  healthChecks = {
    http = {
      web.url = "http://127.0.0.1:8080/healthz";
      web-tls = {
        url = "https://127.0.0.1:8443/healthz";
        expectedStatus = 204;
        skipTLSVerify = true;
        timeoutSeconds = 30;
      };
    };
    tcp.database.address = "127.0.0.1:5432";
    exec = {
      replication = {
        argv = [
          "/nix/store/00000000000000000000000000000000-check-replication/bin/check-replication"
          "--max-lag"
          "30"
        ];
        user = "postgres";
        timeoutSeconds = 1800;
      };
      queue.argv = [ "/nix/store/00000000000000000000000000000000-check-queue/bin/check-queue" ];
    };
  };
in
{
  options = common // {
    healthChecks = healthChecks // {
      systemd.services = {
        units = [
          "nginx.service"
          "getty@tty1.service"
        ];
        timeoutSeconds = 1;
      };
    };
  };

  darwinOptions = common // {
    healthChecks = healthChecks // {
      launchd.nix.labels = [ "org.nixos.nix-daemon" ];
    };
  };
}
