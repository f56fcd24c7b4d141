# SPDX-License-Identifier: Apache-2.0
# Copyright The NixFleet Authors.

##@ Test

.PHONY: test-nix
test-nix: ## Test the Nix side; with NIXPKGS_LIB=/path/to/nixpkgs/lib the modules, too.
	hack/test-nix.sh
