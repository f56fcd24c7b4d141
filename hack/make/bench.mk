# SPDX-License-Identifier: Apache-2.0
# Copyright The NixFleet Authors.
#
# Benchmarks. What they measure is written down in docs/reference/performance.md.

BENCH_TIME ?= 2s
AGENTS ?= 100
BENCH_AGENTS_FLAGS ?=

##@ Measure

.PHONY: bench
bench: bench-planner bench-manager bench-agents ## Measure what docs/reference/performance.md publishes.

.PHONY: bench-planner
bench-planner: ## Measure the planner for 1,000 to 30,000 hosts.
	$(GO) test -run '^$$' -bench BenchmarkPlan -benchtime $(BENCH_TIME) ./internal/rollout

.PHONY: bench-manager
bench-manager: $(ENVTEST_TARGET) ## Measure the memory of the manager with SCALE_HOSTS=10000 hosts on a real API server.
	KUBEBUILDER_ASSETS=$(KUBEBUILDER_ASSETS) $(GO) test -tags integration -run '^$$' -bench BenchmarkManagerMemory -benchtime 1x ./test/scale

.PHONY: bench-agents
bench-agents: build kubectl ## Let AGENTS=100 real agents on simulated hosts carry out a rollout; more flags in BENCH_AGENTS_FLAGS.
	hack/bench-agents.sh --agents $(AGENTS) $(BENCH_AGENTS_FLAGS)
