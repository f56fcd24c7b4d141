# SPDX-License-Identifier: Apache-2.0
# Copyright The NixFleet Authors.
#
# Systems for the hosts of this suite, with what NixFleet and systemd read of a NixOS
# system at the same places. They are built with /bin/sh alone.
{ spec }:
let
  input = builtins.fromJSON (builtins.readFile spec);

  script = name: attrs: text: derivation ({
    inherit name;
    system = builtins.currentSystem;
    builder = "/bin/sh";
    args = [ "-euc" ("PATH=/usr/bin:/bin\n" + text) ];
  } // attrs);

  # The same program in different paths is a different agent to systemd.
  agent = version: script "nixfleet-agent-${toString version}" { program = builtins.path { path = input.agent; name = "program"; }; } ''
    mkdir -p "$out/bin"
    cp "$program" "$out/bin/nixfleet-agent"
    chmod 0555 "$out/bin/nixfleet-agent"
  '';

  file = name: text: script name { inherit text; } ''printf %s "$text" > "$out"'';

  json = name: value: builtins.toFile name (builtins.toJSON value);

  agentUnit = s: ''
    [Unit]
    Description=NixFleet agent
    After=network.target nix-daemon.socket
    StartLimitIntervalSec=0
    X-StopOnRemoval=false

    [Service]
    Type=exec
    ExecStart=${agent s.agent}/bin/nixfleet-agent run --config ${json "agent.json" (input.config // { hostName = s.host; } // s.config)}
    Restart=always
    RestartSec=${toString s.restartSec}
    StateDirectory=nixfleet
    StateDirectoryMode=0700
    OOMScoreAdjust=-500
    X-StopIfChanged=false
  '';

  # What networking would do at boot, and the script below at an activation.
  networkUnit = ''
    [Unit]
    Description=Network
    Before=network.target
    [Service]
    Type=oneshot
    RemainAfterExit=true
    ExecStart=/bin/sh -c 'ip address replace "$(cat /etc/host-address)" dev host0 && ip link set host0 up'
  '';

  # Every unit is wanted, as those of a host are.
  etc = s:
    let
      units = { "network.service" = networkUnit; } // s.units // (if s.agent == 0 then { } else { "nixfleet-agent.service" = agentUnit s; });
      names = builtins.attrNames units;
    in
    script "etc-${s.host}-${s.label}" {
      units = builtins.concatStringsSep "\n" (map (n: "${n} ${file n units.${n}}") names);
      identity = json "host.json" { name = s.host; inherit (input) platform; };
      checks = json "health-checks.json" { inherit (s) checks; };
    } ''
      wants="$out/systemd/system/multi-user.target.wants"
      mkdir -p "$out/nixfleet" "$wants"
      cp "$identity" "$out/nixfleet/host.json"
      cp "$checks" "$out/nixfleet/health-checks.json"
      printf '%s\n' "$units" | while read -r name file; do
        test -n "$name" || continue
        cp "$file" "$out/systemd/system/$name"
        ln -s "../$name" "$wants/$name"
      done
    '';

  switch = ''
    #!/bin/sh
    # As of NixOS: one at a time, /etc by way of /etc/static, units that changed restarted.
    PATH=/usr/sbin:/usr/bin:/sbin:/bin
    action="$1"
    toplevel="''${0%/bin/switch-to-configuration}"
    mkdir -p /run/nixos
    exec 9> /run/nixos/switch-to-configuration.lock
    flock -n 9 || exit 11
    echo "$action $toplevel" >> /var/log/switch.log

    if [ "$action" = boot ]; then
      . "$toplevel/hooks/boot"
      # As for a board with U-Boot.
      cat > /boot/extlinux/extlinux.conf.new <<END
    DEFAULT nixos-default
    LABEL nixos-default
      LINUX ../nixos/kernel
      APPEND init=$toplevel/init loglevel=4
    END
      sync /boot/extlinux/extlinux.conf.new
      mv /boot/extlinux/extlinux.conf.new /boot/extlinux/extlinux.conf
      exit 0
    fi

    old="$(readlink /run/current-system)"
    failed=0
    . "$toplevel/hooks/before"

    # What the configuration of the network would do.
    nft flush ruleset
    ip address replace "$(cat /etc/host-address)" dev host0
    ip link set host0 up

    removed() { test ! -e "$toplevel/etc/systemd/system/$1"; }
    stays() { grep -q '^X-StopOnRemoval=false$' "$old/etc/systemd/system/$1"; }
    for file in "$old"/etc/systemd/system/*.service; do
      unit="''${file##*/}"
      if removed "$unit" && ! stays "$unit"; then systemctl stop "$unit"; fi
    done
    ln -sfn "$toplevel/etc" /etc/static.new && mv -T /etc/static.new /etc/static
    ln -sfn "$toplevel" /run/.current-system && mv -T /run/.current-system /run/current-system
    systemctl daemon-reload
    systemctl reset-failed
    for file in "$toplevel"/etc/systemd/system/*.service; do
      unit="''${file##*/}"
      cmp -s "$file" "$old/etc/systemd/system/$unit" && systemctl is-active --quiet "$unit" && continue
      systemctl restart "$unit" || failed=4
    done
    . "$toplevel/hooks/after"
    exit "$failed"
  '';

  system = s: script "nixos-system-${s.host}-${s.label}"
    {
      inherit switch;
      inherit (s) before after boot label;
      inherit (input) platform;
      etc = etc s;
    } ''
    mkdir -p "$out/bin" "$out/hooks"
    printf %s "$switch" > "$out/bin/switch-to-configuration"
    chmod +x "$out/bin/switch-to-configuration"
    printf '%s\n' "$before" > "$out/hooks/before"
    printf '%s\n' "$after" > "$out/hooks/after"
    printf '%s\n' "$boot" > "$out/hooks/boot"
    printf %s "$label" > "$out/nixos-version"
    printf %s "$platform" > "$out/system"
    printf 'systemd 2' > "$out/init-interface-version"
    ln -s "$etc" "$out/etc"
  '';
in
map system input.systems
