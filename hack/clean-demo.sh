#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Copyright The NixFleet Authors.
#
# Stops and removes the fleets that "make demo KEEP=1" left running from this
# checkout. Fleets of other checkouts and other users are left alone.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

for stop in "${TMPDIR:-/tmp}"/nixfleet-demo-*/stop.sh; do
	# -O: somebody else's script in a shared directory is not ours to run.
	if [[ -O $stop ]] && grep -qF "$PWD/bin" "$(dirname "$stop")/demo-env"; then
		echo "stopping the demo's fleet in $(dirname "$stop")"
		"$stop"
	fi
done
