#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Copyright The NixFleet Authors.
#
# Prints the packages of a module that have tests behind the build tag
# "integration", as go test takes them: "./internal/nix ./controllers/host".
#
# Usage: hack/integration-packages.sh MODULE_DIRECTORY
set -euo pipefail
cd "$1"

# Go itself decides what belongs to the module and which tags a file asks for: a
# package counts if the tag gives it test files that it does not have without.
# shellcheck disable=SC2016 # the dollar signs are the template's
list() {
	go list "$@" -f '{{$dir := .Dir}}{{range .TestGoFiles}}{{$dir}}/{{.}}{{"\n"}}{{end}}{{range .XTestGoFiles}}{{$dir}}/{{.}}{{"\n"}}{{end}}' ./... | sed '/^$/d' | sort
}

without=$(list)
with=$(list -tags integration)

comm -13 <(echo "$without") <(echo "$with") |
	while IFS= read -r file; do [[ -z $file ]] || dirname "./${file#"$PWD/"}"; done |
	sort -u | tr '\n' ' '
