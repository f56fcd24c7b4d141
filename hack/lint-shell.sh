#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Copyright The NixFleet Authors.
#
# Runs shellcheck on every shell script that Git does not ignore.
set -euo pipefail
cd "$(git rev-parse --show-toplevel)"

mapfile -t scripts < <(git ls-files --cached --others --exclude-standard -- '*.sh' .ci/run)

if ! command -v shellcheck >/dev/null; then
	{
		echo "########################################################################"
		echo "# SKIPPED: shellcheck is not installed; ${#scripts[@]} shell scripts are NOT checked."
		echo "# Install it (apt-get install shellcheck, nix-shell -p shellcheck)."
		echo "########################################################################"
	} >&2
	exit 0
fi

echo "shellcheck of ${#scripts[@]} scripts"
shellcheck --external-sources "${scripts[@]}"
