# SPDX-License-Identifier: Apache-2.0
# Copyright The NixFleet Authors.
#
# Builds a system from a description in JSON (see spec.go), with nothing but /bin/sh and
# the tools in /usr/bin.
{ spec }:
let
  s = builtins.fromJSON (builtins.readFile spec);

  # A directory of files and links. The contents travel in environment variables, so that
  # store paths in them become references.
  tree = name: files: links:
    let
      paths = builtins.attrNames files;
      targets = builtins.attrNames links;
      number = prefix: values:
        builtins.listToAttrs (builtins.genList
          (i: { name = "${prefix}${toString i}"; value = builtins.elemAt values i; })
          (builtins.length values));
    in
    derivation ({
      inherit name;
      system = builtins.currentSystem;
      builder = "/bin/sh";
      args = [
        "-c"
        ''
          set -e
          PATH=/usr/bin:/bin
          mkdir "$out"
          i=0
          while [ "$i" -lt "$fileCount" ]; do
            eval "path=\$path$i text=\$text$i mode=\$mode$i"
            mkdir -p "$(dirname "$out/$path")"
            printf %s "$text" > "$out/$path"
            chmod "$mode" "$out/$path"
            i=$((i + 1))
          done
          i=0
          while [ "$i" -lt "$linkCount" ]; do
            eval "link=\$link$i target=\$target$i"
            mkdir -p "$(dirname "$out/$link")"
            ln -s "$target" "$out/$link"
            i=$((i + 1))
          done
        ''
      ];
      fileCount = builtins.length paths;
      linkCount = builtins.length targets;
    }
    // number "path" paths
    // number "text" (map (p: files.${p}.text) paths)
    // number "mode" (map (p: files.${p}.mode) paths)
    // number "link" targets
    // number "target" (map (p: links.${p}) targets));

  scripts = builtins.mapAttrs
    (name: text: tree "${name}-script" { "bin/${name}" = { inherit text; mode = "755"; }; } { })
    s.scripts;
  scriptNames = builtins.attrNames scripts;
  # @name@ stands for the path of a script.
  fill = builtins.replaceStrings
    (map (name: "@${name}@") scriptNames)
    (map (name: "${scripts.${name}}/bin/${name}") scriptNames);
  fillFile = file: file // { text = fill file.text; };

  # Every system of a fleet shares most of what it needs.
  shared = tree "shared-libraries" { "lib/libshared" = { text = "shared"; mode = "644"; }; } { };
  kernel = tree "linux-${s.kernel}" { "bzImage" = { text = "linux ${s.kernel}"; mode = "644"; }; } { };
  software = tree "system-path-${s.name}"
    { "share/ballast" = { text = s.ballast; mode = "644"; }; }
    { "lib" = "${shared}/lib"; };
  etc = tree "etc-${s.name}" (builtins.mapAttrs (_: fillFile) s.etc) (builtins.mapAttrs (_: fill) s.etcLinks);
in
tree "nixos-system-${s.name}" (builtins.mapAttrs (_: fillFile) s.files) ({
  "etc" = "${etc}";
  "sw" = "${software}";
  "kernel" = "${kernel}/bzImage";
} // builtins.mapAttrs (_: fill) s.links)
