#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Copyright The NixFleet Authors.
#
# Tests the Nix side, as far as this machine can: what parses and how it is laid out, what
# needs only Nix itself, and, with the lib directory of nixpkgs in NIXPKGS_LIB, the
# modules in the real module system. Whole machines are for "nix flake check".
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

hack/ensure-nix.sh

# No daemon, no configuration of this machine, nothing written to its store.
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
export HOME=$scratch NIX_CONF_DIR=$scratch NIX_REMOTE=dummy:// NIX_PATH=

mapfile -t files < <(git ls-files --cached --others --exclude-standard '*.nix')
failed=

# complain FILE MESSAGE
complain() {
	echo "$1: $2" >&2
	failed=1
}

# A formatter of Nix is in no package of Debian: "nix fmt" formats, this finds what no
# formatter would leave.
for file in "${files[@]}"; do
	nix-instantiate --parse "$file" >/dev/null || complain "$file" "does not parse"
	if grep -nP '\t' "$file"; then complain "$file" "has a tab in the lines above"; fi
	if grep -nP '[ \r]$' "$file"; then complain "$file" "has space at the end of the lines above"; fi
	[[ -z $(tail -c 1 "$file") ]] || complain "$file" "does not end with a newline"
done
echo "parsed ${#files[@]} files"

# evaluate NAME EXPRESSION runs tests: { count; failures; }.
evaluate() {
	local name=$1 result
	if ! result=$(nix-instantiate --eval --strict --json -E "$2"); then
		complain "$name" "the tests cannot be evaluated"
		return
	fi
	if [[ $result == *'"failures":[]'* ]]; then
		echo "$name: $result"
	else
		complain "$name" "$result"
	fi
}

evaluate "pure functions" "import $PWD/nix/tests/pure.nix"
if [[ -n ${NIXPKGS_LIB:-} ]]; then
	evaluate modules "import $PWD/nix/tests/modules.nix { nixpkgsLib = $(realpath "$NIXPKGS_LIB"); }"
else
	echo "SKIPPED: the tests of the modules need the module system of nixpkgs: NIXPKGS_LIB=/path/to/nixpkgs/lib make test-nix" >&2
fi
[[ -z $failed ]]
