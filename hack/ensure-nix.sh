#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Copyright The NixFleet Authors.
#
# Makes sure that Nix is here: the demo and the integration tests build and fetch
# real closures with it. No daemon and no nixpkgs are needed. On Debian and Ubuntu,
# as root, it installs the package nix-bin; elsewhere it says what to install.
set -euo pipefail

have_nix() { command -v nix-store >/dev/null && command -v nix-build >/dev/null; }

if have_nix; then
	echo "ensure-nix: found $(nix-store --version)"
	exit 0
fi

if command -v apt-get >/dev/null && [[ $(id -u) == 0 ]]; then
	echo "ensure-nix: Nix is not installed; installing the package nix-bin with apt-get"
	export DEBIAN_FRONTEND=noninteractive
	# An index that is already there may well do.
	apt-get install -y --no-install-recommends nix-bin ||
		{ apt-get update && apt-get install -y --no-install-recommends nix-bin; }
	have_nix || { echo "ensure-nix: nix-bin is installed, but nix-store and nix-build are not in PATH" >&2; exit 1; }
	echo "ensure-nix: installed $(nix-store --version)"
	exit 0
fi

cat >&2 <<'TEXT'
ensure-nix: Nix is not installed, and this script installs it only on Debian and
Ubuntu, as root. Install it yourself, then run make again:

  Debian, Ubuntu   sudo apt-get install nix-bin
  Fedora           sudo dnf install nix
  Arch Linux       sudo pacman -S nix
  elsewhere        https://nixos.org/download
TEXT
exit 1
