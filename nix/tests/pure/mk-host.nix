# SPDX-License-Identifier: Apache-2.0
# Copyright The NixFleet Authors.
#
# mkHost with constructors that return what they were called with.
let
  problems = import ../../lib/host-arguments.nix;

  # As nixpkgs' lib has them.
  override = priority: content: {
    _type = "override";
    inherit priority content;
  };
  mkDefault = override 1000;
  mkForce = override 50;

  inputs = {
    disko.nixosModules.disko = "disko";
    impermanence.nixosModules.impermanence = "impermanence";
  };
  mkHost = import ../../lib/mk-host.nix {
    inherit inputs;
    lib = { inherit mkDefault mkForce; };
    nixosSystem = args: args // { made = "nixos"; };
    darwinSystem = args: args // { made = "darwin"; };
    modules = {
      hostSpec = "hostSpec options";
      nixos = [
        "core"
        "agent"
        "control-plane"
        "cache-server"
        "cache"
        "microvm-host"
      ];
      darwin = [
        "core"
        "agent"
      ];
      nixosVm = "vm";
    };
  };

  linux = {
    hostName = "web-01";
    platform = "x86_64-linux";
    stateVersion = "26.05";
  };
  mac = {
    hostName = "mac-01";
    platform = "aarch64-darwin";
    stateVersion = 6;
  };

  # A module in one word: what mkHost wrote is named by its file.
  word = m: m._file or m;
  only = problem: args: {
    expr = problems args;
    expected = [ problem ];
  };
  fails = args: (builtins.tryEval (mkHost args).made).success;
in
{
  "the platform chooses the constructor" = {
    expr =
      map (platform: (mkHost (linux // { inherit platform; })).made) [
        "x86_64-linux"
        "aarch64-linux"
      ]
      ++ map (platform: (mkHost (mac // { inherit platform; })).made) [
        "x86_64-darwin"
        "aarch64-darwin"
      ];
    expected = [
      "nixos"
      "nixos"
      "darwin"
      "darwin"
    ];
  };
  "NixOS: modules in their order" = {
    expr = map word (mkHost (linux // { modules = [ "mine" ]; })).modules;
    expected = [
      "mkHost of web-01 (stateVersion)"
      "mkHost of web-01 (platform)"
      "hostSpec options"
      "mkHost of web-01 (hostSpec)"
      "disko"
      "impermanence"
      "core"
      "agent"
      "control-plane"
      "cache-server"
      "cache"
      "microvm-host"
      "mine"
    ];
  };
  "NixOS: a virtual machine has one more module" = {
    expr = map word (
      mkHost (
        linux
        // {
          modules = [ "mine" ];
          isVm = true;
        }
      )
    ).modules;
    expected = map word (mkHost (linux // { modules = [ "mine" ]; })).modules ++ [ "vm" ];
  };
  "darwin: modules in their order" = {
    expr = map word (mkHost (mac // { modules = [ "mine" ]; })).modules;
    expected = [
      "mkHost of mac-01 (stateVersion)"
      "mkHost of mac-01 (platform)"
      "hostSpec options"
      "mkHost of mac-01 (hostSpec)"
      "core"
      "agent"
      "mine"
    ];
  };
  "stateVersion can be overridden, the platform cannot be left open" = {
    expr = map (m: removeAttrs m [ "_file" ]) [
      (builtins.elemAt (mkHost linux).modules 0)
      (builtins.elemAt (mkHost linux).modules 1)
      (builtins.elemAt (mkHost mac).modules 0)
    ];
    expected = [
      { system.stateVersion = mkDefault "26.05"; }
      { nixpkgs.hostPlatform = "x86_64-linux"; }
      { system.stateVersion = mkDefault 6; }
    ];
  };
  "hostSpec: values can be overridden, the name cannot" = {
    expr =
      (builtins.elemAt (mkHost (
        linux
        // {
          hostSpec = {
            timeZone = "Europe/Paris";
            networking.interface = "eth0";
          };
        }
      )).modules 3).hostSpec;
    expected = {
      hostName = mkForce "web-01";
      timeZone = mkDefault "Europe/Paris";
      networking = mkDefault { interface = "eth0"; };
    };
  };
  "hostSpec: darwin is told" = {
    expr = (builtins.elemAt (mkHost mac).modules 3).hostSpec;
    expected = {
      hostName = mkForce "mac-01";
      isDarwin = mkForce true;
    };
  };
  "the framework's inputs and the fleet's own arguments reach modules" = {
    expr = (mkHost (linux // { specialArgs.fleet = "mine"; })).specialArgs;
    expected = {
      inherit inputs;
      fleet = "mine";
    };
  };

  "good arguments have no problems" = {
    expr = problems (
      linux
      // {
        hostSpec.hostName = "web-01";
        modules = [ { } ];
        specialArgs.fleet = 1;
        isVm = true;
      }
    );
    expected = [ ];
  };
  "what has problems is not built" = {
    expr = map fails [
      linux
      (removeAttrs linux [ "stateVersion" ])
      { }
      [ ]
    ];
    expected = [
      true
      false
      false
      false
    ];
  };
  "no attribute set" = only "mkHost takes one attribute set, such as { hostName = \"web-01\"; platform = \"x86_64-linux\"; stateVersion = \"26.05\"; }, not a string" "web-01";
  "no hostName" =
    only "mkHost, a host without a name: the argument \"hostName\" is missing"
      (removeAttrs linux [ "hostName" ]);
  "a hostName that is none" =
    only
      "mkHost, host \"Web.01\": hostName must have 1 to 63 lower-case letters, digits and \"-\", and begin and end with a letter or digit: it becomes the name of the Host"
      (linux // { hostName = "Web.01"; });
  "a hostName of another type" =
    only "mkHost, a host without a name: the argument \"hostName\" must be a string, not an integer"
      (linux // { hostName = 1; });
  "no platform" =
    only
      "mkHost, host \"web-01\": the argument \"platform\" is missing; write one of \"aarch64-darwin\", \"aarch64-linux\", \"x86_64-darwin\", \"x86_64-linux\""
      (removeAttrs linux [ "platform" ]);
  "another platform" =
    only
      "mkHost, host \"web-01\": there is no platform \"riscv64-linux\"; write one of \"aarch64-darwin\", \"aarch64-linux\", \"x86_64-darwin\", \"x86_64-linux\""
      (linux // { platform = "riscv64-linux"; });
  "no stateVersion" =
    only
      "mkHost, host \"web-01\": the argument \"stateVersion\" is missing; it has no default, because a default would change with the framework: write the release that the host was installed with, \"26.05\" (a string) on NixOS, 6 (an integer) on darwin"
      (removeAttrs linux [ "stateVersion" ]);
  "an integer as stateVersion of NixOS" =
    only
      "mkHost, host \"web-01\": stateVersion must be the NixOS release that the host was installed with, as a string such as \"26.05\", not 6"
      (linux // { stateVersion = 6; });
  "a stateVersion of NixOS that is no release" =
    only
      "mkHost, host \"web-01\": stateVersion must be the NixOS release that the host was installed with, as a string such as \"26.05\", not \"unstable\""
      (linux // { stateVersion = "unstable"; });
  "a string as stateVersion of darwin" =
    only
      "mkHost, host \"mac-01\": stateVersion must be the number of nix-darwin that the host was set up with, as an integer such as 6, not \"26.05\""
      (mac // { stateVersion = "26.05"; });
  "a stateVersion that is a function has no text" = {
    expr = builtins.length (problems (linux // { stateVersion = x: x; }));
    expected = 1;
  };
  "an argument that does not exist" =
    only
      "mkHost, host \"web-01\": there is no argument \"system\"; mkHost takes \"hostName\", \"hostSpec\", \"isVm\", \"modules\", \"platform\", \"specialArgs\", \"stateVersion\". What configures the system goes into modules"
      (linux // { system = "x86_64-linux"; });
  "arguments of other types" = {
    expr = problems (
      linux
      // {
        hostSpec = [ ];
        modules = { };
        specialArgs = x: x;
        isVm = "yes";
      }
    );
    expected = [
      "mkHost, host \"web-01\": the argument \"hostSpec\" must be an attribute set, not a list"
      "mkHost, host \"web-01\": the argument \"isVm\" must be true or false, not a string"
      "mkHost, host \"web-01\": the argument \"modules\" must be a list, not an attribute set"
      "mkHost, host \"web-01\": the argument \"specialArgs\" must be an attribute set, not a function"
    ];
  };
  "another name in hostSpec" =
    only "mkHost, host \"web-01\": hostSpec.hostName is another name; leave it out, mkHost sets it"
      (linux // { hostSpec.hostName = "web-02"; });
  "isDarwin in hostSpec" =
    only "mkHost, host \"web-01\": hostSpec.isDarwin follows from the platform; leave it out"
      (linux // { hostSpec.isDarwin = true; });
  "inputs in specialArgs" =
    only
      "mkHost, host \"web-01\": specialArgs.inputs would hide the framework's inputs from its modules; pass yours under another name, such as specialArgs.fleetInputs"
      (linux // { specialArgs.inputs = { }; });
  "a Mac as a virtual machine" =
    only "mkHost, host \"mac-01\": isVm is for NixOS; leave it out on aarch64-darwin"
      (mac // { isVm = true; });
  "everything at once" = {
    expr = builtins.length (problems {
      hostName = "";
      platform = "";
      stateVersion = null;
      nope = 1;
    });
    expected = 3;
  };
}
