#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Copyright The NixFleet Authors.
#
# Starts a control plane of its own, lets many simulated hosts with real agents carry out
# a rollout, and says what the control plane and the agents took.
#
# Usage: hack/bench-agents.sh [FLAG OF hack/agents...]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

dir=$(mktemp -d)
pid=
# shellcheck disable=SC2317 # called by the trap
cleanup() {
	[[ -z $pid ]] || kill "$pid" 2>/dev/null || true
	wait 2>/dev/null || true
	rm -rf "$dir"
}
trap cleanup EXIT

# free_port prints a port of loopback that nobody listens on.
free_port() {
	local port
	for ((port = 20000 + RANDOM % 20000; ; port++)); do
		(exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
	done
	echo "$port"
}

api=$(free_port)
gateway=$(free_port)
go build -o "$dir/agents" ./hack/agents
bin/nixfleet-control-plane --data-dir "$dir/control-plane" --secure-port "$api" --gateway-address "127.0.0.1:$gateway" >"$dir/log" 2>&1 &
pid=$!
for ((i = 0; i < 120; i++)); do
	KUBECONFIG=$dir/control-plane/admin.kubeconfig bin/kubectl get rollouts.nixfleet.io >/dev/null 2>&1 && break
	kill -0 "$pid" 2>/dev/null || { tail "$dir/log" >&2; exit 1; }
	sleep 1
done
"$dir/agents" --kubeconfig "$dir/control-plane/admin.kubeconfig" --ca "$dir/control-plane/pki/gateway-ca.crt" \
	--server "https://127.0.0.1:$gateway" "$@"
awk '/VmRSS/ { printf "the control plane has %d MB of resident memory\n", $2 / 1024 }' "/proc/$pid/status"
