# SPDX-License-Identifier: Apache-2.0
# Copyright The NixFleet Authors.

# How long each target is fuzzed, and which: a pattern of their names.
FUZZTIME ?= 30s
FUZZ ?= .

##@ Test

.PHONY: fuzz
fuzz: ## Fuzz what reads foreign bytes, each target for FUZZTIME. FUZZ=Journal: those with that name. Plain tests run the seeds.
	@for dir in $$(grep -rl --include='*_test.go' '^func Fuzz' internal api | xargs -n1 dirname | sort -u); do \
		for target in $$($(GO) test -list '^Fuzz' ./$$dir | grep '^Fuzz' | grep -E '$(FUZZ)'); do \
			echo "$$dir $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) ./$$dir; \
		done; \
	done
