# SPDX-License-Identifier: Apache-2.0
# Copyright The NixFleet Authors.

# The hosts wait most of the time: for timers, and for one another.
E2E_FLAGS ?= -parallel 5

##@ Test

.PHONY: test-e2e
test-e2e: build ## Try the agent on real hosts: containers with systemd. Needs root, Nix and systemd-nspawn.
	$(GO) test -tags e2e -count=1 -timeout 30m $(E2E_FLAGS) ./test/e2e
