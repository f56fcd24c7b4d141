# SPDX-License-Identifier: Apache-2.0
# Copyright The NixFleet Authors.

GENERATED_TARGETS += metrics-reference

##@ Generate

.PHONY: metrics-reference
metrics-reference: ## Generate the tables of docs/reference/metrics.md and events.md from those of the manager.
	$(GO) run ./hack/metrics-reference
