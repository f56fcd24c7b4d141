# SPDX-License-Identifier: Apache-2.0
# Copyright The NixFleet Authors.
#
# What is wrong with the arguments of mkHost, as sentences that say what to write instead.
# An empty list: nothing.
let
  platforms = import ./platforms.nix;

  known = {
    hostName = "string";
    platform = "string";
    stateVersion = null;
    hostSpec = "set";
    modules = "list";
    specialArgs = "set";
    isVm = "bool";
  };
  required = [
    "hostName"
    "platform"
    "stateVersion"
  ];

  typeNames = {
    string = "a string";
    int = "an integer";
    set = "an attribute set";
    list = "a list";
    bool = "true or false";
    lambda = "a function";
    path = "a path";
    null = "null";
    float = "a float";
  };

  quoted = names: builtins.concatStringsSep ", " (map (n: "\"${n}\"") names);
  isHostName =
    s: builtins.stringLength s <= 63 && builtins.match "[a-z0-9]([-a-z0-9]*[a-z0-9])?" s != null;
in
args:
let
  # The host cannot be named before its name is known to be one.
  host =
    if builtins.isString (args.hostName or null) then
      "host \"${args.hostName}\""
    else
      "a host without a name";
  problem = text: "mkHost, ${host}: ${text}";
  when = condition: text: if condition then [ (problem text) ] else [ ];

  names = builtins.attrNames args;
  class = platforms.${args.platform or ""} or null;
  given = name: args ? ${name};
  typed = name: given name && (known.${name} == null || builtins.typeOf args.${name} == known.${name});

  stateVersion =
    if class == "nixos" then
      when (
        !(builtins.isString args.stateVersion)
        || builtins.match "[0-9][0-9]\\.[0-9][0-9]" args.stateVersion == null
      ) "stateVersion must be the NixOS release that the host was installed with, as a string such as \"26.05\", not ${builtins.toJSON args.stateVersion}"
    else if class == "darwin" then
      when (!(builtins.isInt args.stateVersion) || args.stateVersion < 1)
        "stateVersion must be the number of nix-darwin that the host was set up with, as an integer such as 6, not ${builtins.toJSON args.stateVersion}"
    else
      [ ];
in
if !(builtins.isAttrs args) then
  [
    "mkHost takes one attribute set, such as { hostName = \"web-01\"; platform = \"x86_64-linux\"; stateVersion = \"26.05\"; }, not ${
      typeNames.${builtins.typeOf args}
    }"
  ]
else
  builtins.concatMap (
    n:
    when (!(known ? ${n}))
      "there is no argument \"${n}\"; mkHost takes ${quoted (builtins.attrNames known)}. What configures the system goes into modules"
  ) names
  ++ builtins.concatMap (
    n:
    when (!(given n)) (
      "the argument \"${n}\" is missing"
      + (
        if n == "stateVersion" then
          "; it has no default, because a default would change with the framework: write the release that the host was installed with, \"26.05\" (a string) on NixOS, 6 (an integer) on darwin"
        else if n == "platform" then
          "; write one of ${quoted (builtins.attrNames platforms)}"
        else
          ""
      )
    )
  ) required
  ++ builtins.concatMap (
    n:
    when (known ? ${n} && !(typed n))
      "the argument \"${n}\" must be ${typeNames.${known.${n}}}, not ${typeNames.${builtins.typeOf args.${n}}}"
  ) names
  ++ (
    if typed "hostName" then
      when (!(isHostName args.hostName))
        "hostName must have 1 to 63 lower-case letters, digits and \"-\", and begin and end with a letter or digit: it becomes the name of the Host"
    else
      [ ]
  )
  ++ (
    if typed "platform" then
      when (class == null)
        "there is no platform \"${args.platform}\"; write one of ${quoted (builtins.attrNames platforms)}"
    else
      [ ]
  )
  ++ (if given "stateVersion" then stateVersion else [ ])
  ++ (
    if typed "hostSpec" then
      when (args.hostSpec ? hostName && args.hostSpec.hostName != args.hostName or null)
        "hostSpec.hostName is another name; leave it out, mkHost sets it"
      ++
        when (args.hostSpec ? isDarwin)
          "hostSpec.isDarwin follows from the platform; leave it out"
    else
      [ ]
  )
  ++ (
    if typed "specialArgs" then
      when (args.specialArgs ? inputs)
        "specialArgs.inputs would hide the framework's inputs from its modules; pass yours under another name, such as specialArgs.fleetInputs"
    else
      [ ]
  )
  ++
    when ((args.isVm or false) == true && class == "darwin")
      "isVm is for NixOS; leave it out on ${args.platform or "darwin"}"
