# SPDX-License-Identifier: Apache-2.0
# Copyright The NixFleet Authors.

GENERATED_TARGETS += cli-reference

##@ Generate

.PHONY: cli-reference
cli-reference: ## Generate docs/reference/cli.md from the help of kubectl nixfleet.
	$(GO) run ./hack/cli-reference > docs/reference/cli.md.new
	mv docs/reference/cli.md.new docs/reference/cli.md
