#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Copyright The NixFleet Authors.
#
# Runs a command and fails, with the difference, if it changed any file that Git
# does not ignore. The working tree may hold uncommitted work: what counts is the
# tree before against the tree after.
#
# Usage: hack/verify.sh COMMAND [ARGUMENT...]
set -euo pipefail
cd "$(git rev-parse --show-toplevel)"

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# snapshot prints the id of a Git tree of the working tree as it is now, made with
# an index of its own: what is staged stays as it is.
snapshot() {
	rm -f "$scratch/index"
	GIT_INDEX_FILE=$scratch/index git add --all
	GIT_INDEX_FILE=$scratch/index git write-tree
}

before=$(snapshot)
"$@"
after=$(snapshot)

if [[ $before == "$after" ]]; then
	echo "verify: nothing has changed"
	exit 0
fi

git --no-pager diff "$before" "$after" >&2
git --no-pager diff --stat "$before" "$after" >&2
echo "verify: the files above were out of date. They have been brought up to date: look at them and commit them." >&2
exit 1
