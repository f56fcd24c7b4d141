# SPDX-License-Identifier: Apache-2.0
# Copyright The NixFleet Authors.
#
# The systems of the demo's hosts. Each has what NixFleet reads of a NixOS system, at the
# same places, and next to nothing else: it takes /bin/sh to build, and no nixpkgs.
{ spec }:
let
  input = builtins.fromJSON (builtins.readFile spec);

  # What is built is never of a platform, so this machine can build all of it.
  script = name: attrs: text: derivation ({
    inherit name;
    system = builtins.currentSystem;
    builder = "/bin/sh";
    args = [ "-euc" ("PATH=/usr/bin:/bin\n" + text) ];
  } // attrs);

  # Most of what two systems consist of is the same.
  kernel = script "linux-6.12.1" { } ''
    mkdir "$out"
    printf 'a kernel\n' > "$out/bzImage"
  '';

  # The check that comes with a system: whether the service is configured.
  check = script "service-check" { } ''
    mkdir -p "$out/bin"
    cat > "$out/bin/service-check" <<'END'
    #!/bin/sh
    # Run by its full path, which begins with the root of the host.
    root="''${0%%/nix/store/*}"
    system="$(readlink "$root/run/current-system")" || exit 1
    etc="$(readlink "$root$system/etc")" || exit 1
    test -s "$root$etc/demo/service.json"
    END
    chmod +x "$out/bin/service-check"
  '';

  etc = s: script "etc-${s.host}-${s.label}"
    {
      identity = builtins.toJSON { name = s.host; platform = input.platform; };
      checks = builtins.toJSON {
        checks = [
          { name = "configured"; type = "exec"; timeoutSeconds = 10; exec.argv = [ "${check}/bin/service-check" ]; }
          {
            name = "service"; type = "http"; timeoutSeconds = 5;
            http = { url = "http://127.0.0.1:${toString s.port}/healthz"; expectedStatus = 200; };
          }
        ];
      };
      service = builtins.toJSON { inherit (s) status; text = "${s.host} runs ${s.label}"; };
      unit = ''
        [Unit]
        Description=NixFleet agent

        [Service]
        ExecStart=/run/current-system/sw/bin/nixfleet-agent

        [Install]
        WantedBy=multi-user.target
      '';
    } ''
      mkdir -p "$out/nixfleet" "$out/demo" "$out/systemd/system/multi-user.target.wants"
      printf %s "$identity" > "$out/nixfleet/host.json"
      printf %s "$checks" > "$out/nixfleet/health-checks.json"
      printf %s "$service" > "$out/demo/service.json"
      printf %s "$unit" > "$out/systemd/system/nixfleet-agent.service"
      ln -s ../nixfleet-agent.service "$out/systemd/system/multi-user.target.wants/nixfleet-agent.service"
    '';

  # Activates the system on the host whose store it lies in, whichever directory of this
  # machine is that host's root. As on NixOS, /run/current-system comes last.
  activate = ''
    #!/bin/sh
    PATH=/usr/bin:/bin
    action="$1"
    root="''${0%%/nix/store/*}"
    toplevel="''${0#"$root"}"
    toplevel="''${toplevel%/bin/switch-to-configuration}"
    mkdir -p "$root/run" "$root/var/log" "$root/boot"
    echo "$action $toplevel" >> "$root/var/log/switch.log"
    case "$action" in
    switch | boot) printf '%s\n' "$toplevel" > "$root/boot/default" ;;
    esac
    case "$action" in
    switch | test)
      # Stopping and starting services takes time.
      sleep @seconds@
      ln -sfn "$toplevel" "$root/run/.current-system"
      mv -T "$root/run/.current-system" "$root/run/current-system"
      ;;
    esac
  '';

  system = s: script "nixos-system-${s.host}-${s.label}"
    {
      inherit kernel;
      inherit (s) label;
      inherit (input) platform;
      etc = etc s;
      activate = builtins.replaceStrings [ "@seconds@" ] [ (toString s.seconds) ] activate;
    } ''
    mkdir -p "$out/bin"
    printf %s "$activate" > "$out/bin/switch-to-configuration"
    chmod +x "$out/bin/switch-to-configuration"
    printf %s "$label" > "$out/nixos-version"
    printf %s "$platform" > "$out/system"
    printf 'systemd 2' > "$out/init-interface-version"
    ln -s "$etc" "$out/etc"
    ln -s "$kernel/bzImage" "$out/kernel"
  '';
in
map system input.systems
