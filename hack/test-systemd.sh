#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Copyright The NixFleet Authors.
#
# Runs the tests that need a machine run by systemd, in a container that boots one over
# a copy-on-write view of this machine's files. Needs root and systemd-nspawn, which it
# installs on Debian and Ubuntu.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [[ $(id -u) != 0 ]]; then
	echo "the systemd tests boot a container and need root; run: sudo make test-systemd" >&2
	exit 1
fi
if ! command -v systemd-nspawn >/dev/null; then
	if ! command -v apt-get >/dev/null; then
		echo "systemd-nspawn is not installed; it is in the package systemd-container of most distributions" >&2
		exit 1
	fi
	apt-get update
	apt-get install -y --no-install-recommends systemd-container systemd dbus
fi

work=$(mktemp -d)
machine="nixfleet-test-$$"
# shellcheck disable=SC2317 # called by the trap
cleanup() {
	machinectl terminate "$machine" 2>/dev/null || true
	umount "$work/root" 2>/dev/null || umount -l "$work/root" 2>/dev/null || true
	umount "$work/layer" 2>/dev/null || umount -l "$work/layer" 2>/dev/null || true
	rm -rf "$work"
}
trap cleanup EXIT

mkdir -p "$work/layer" "$work/root"
# An overlay cannot lie on another one, so the upper layer lies in memory.
mount -t tmpfs tmpfs "$work/layer"
mkdir "$work/layer/up" "$work/layer/work"
mount -t overlay overlay -o "lowerdir=/,upperdir=$work/layer/up,workdir=$work/layer/work" "$work/root"
rm -f "$work/root/etc/machine-id"

for package in activation agent health; do
	CGO_ENABLED=0 go test -c -tags systemd -o "$work/root/root/$package.test" "./internal/$package"
done
CGO_ENABLED=0 go build -o "$work/root/root/nixfleet-agent" ./cmd/node-agent
mkdir -p "$work/root/etc/systemd/system"
cat >"$work/root/etc/systemd/system/nixfleet-test.service" <<'UNIT'
[Unit]
Description=NixFleet tests
After=basic.target dbus.service
# Those of activations come last: one of them enters emergency mode, which stops basic.target.
DefaultDependencies=no
IgnoreOnIsolate=yes

[Service]
Type=oneshot
WorkingDirectory=/root
# Emergency mode takes /tmp away.
Environment=TMPDIR=/root
ExecStart=/bin/sh -c 'for p in agent health activation; do /root/$$p.test -test.v -test.run Systemd -test.timeout 5m >>/root/output 2>&1 || failed=1; done; echo $${failed:-0} >/root/code'
ExecStopPost=/bin/systemctl --no-block poweroff
UNIT
mkdir -p "$work/root/etc/systemd/system/nixfleet-test.target.wants"
cat >"$work/root/etc/systemd/system/nixfleet-test.target" <<'UNIT'
[Unit]
Requires=basic.target dbus.socket
After=basic.target dbus.socket
Wants=nixfleet-test.service
UNIT

timeout 420 systemd-nspawn -q -D "$work/root" --boot --register=no --keep-unit -M "$machine" \
	--private-network --console=pipe systemd.unit=nixfleet-test.target </dev/null >"$work/boot.log" 2>&1 || true

if [[ ! -f $work/root/root/code ]]; then
	echo "the container did not run the tests; it said:" >&2
	tail -n 30 "$work/boot.log" >&2
	exit 1
fi
cat "$work/root/root/output"
exit "$(cat "$work/root/root/code")"
