# SPDX-License-Identifier: Apache-2.0
# Copyright The NixFleet Authors.
let
  manifests = import ../../lib/manifests.nix;

  host = hostName: agent: {
    config = {
      # As NixOS has it once it is evaluated.
      nixpkgs.hostPlatform.system = "x86_64-linux";
      services.nixfleet-agent = {
        enable = true;
        namespace = "fleet";
        inherit hostName;
        tags = [ ];
        publicKeys = [ ];
      }
      // agent;
    };
  };
  mac = {
    config = (host "mac-01" { }).config // {
      nixpkgs.hostPlatform = "aarch64-darwin";
    };
  };
  labelsOf =
    tags:
    (builtins.head (manifests { nixosConfigurations.web-01 = host "web-01" { inherit tags; }; }).items)
    .metadata.labels;
  works = value: (builtins.tryEval (builtins.deepSeq value true)).success;
in
{
  "a fleet is a list of Hosts, by namespace and name" = {
    expr = manifests {
      nixosConfigurations = {
        b = host "web-02" { };
        a = host "web-01" {
          tags = [
            "role=web"
            "canary"
          ];
          publicKeys = [ "ssh-ed25519 AAAA root@web-01" ];
        };
      };
      darwinConfigurations.mac-01 = mac;
    };
    expected = {
      apiVersion = "v1";
      kind = "List";
      items = [
        {
          apiVersion = "nixfleet.io/v1alpha1";
          kind = "Host";
          metadata = {
            name = "mac-01";
            namespace = "fleet";
          };
          spec.platform = "aarch64-darwin";
        }
        {
          apiVersion = "nixfleet.io/v1alpha1";
          kind = "Host";
          metadata = {
            name = "web-01";
            namespace = "fleet";
            labels = {
              role = "web";
              canary = "true";
            };
          };
          spec = {
            platform = "x86_64-linux";
            identity.publicKeys = [ "ssh-ed25519 AAAA root@web-01" ];
          };
        }
        {
          apiVersion = "nixfleet.io/v1alpha1";
          kind = "Host";
          metadata = {
            name = "web-02";
            namespace = "fleet";
          };
          spec.platform = "x86_64-linux";
        }
      ];
    };
  };
  "hosts whose agent is off, and that have none, are left out" = {
    expr =
      (manifests {
        nixosConfigurations = {
          off = host "off" { enable = false; };
          other.config.services = { };
        };
      }).items;
    expected = [ ];
  };
  "no hosts at all" = {
    expr = (manifests { }).items;
    expected = [ ];
  };
  "labels may have a prefix and an empty value" = {
    expr = labelsOf [
      "example.org/site=paris-1"
      "empty="
    ];
    expected = {
      "example.org/site" = "paris-1";
      empty = "";
    };
  };
  "the same label twice is one" = {
    expr = labelsOf [
      "canary"
      "canary=true"
    ];
    expected.canary = "true";
  };
  "two values for a label are refused" = {
    expr = works (labelsOf [
      "role=web"
      "role=db"
    ]);
    expected = false;
  };
  "what cannot be a label is refused" = {
    expr = map (tag: works (labelsOf [ tag ])) [
      "in the cellar"
      "=x"
      "a=b=c"
      "-a"
      "site=example.org/paris"
      "role=web"
    ];
    expected = [
      false
      false
      false
      false
      false
      true
    ];
  };
  "two hosts of one name are refused" = {
    expr = works (manifests {
      nixosConfigurations = {
        a = host "web-01" { };
        b = host "web-01" { };
      };
    });
    expected = false;
  };
  "the same name in another namespace is another host" = {
    expr = builtins.length (
      (manifests {
        nixosConfigurations = {
          a = host "web-01" { };
          b = host "web-01" { namespace = "other"; };
        };
      }).items
    );
    expected = 2;
  };
}
