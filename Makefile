# SPDX-License-Identifier: Apache-2.0
# Copyright The NixFleet Authors.

# "make" explains every target. A target is explained by the text after ## on its
# line; a line that begins with ##@ begins a group.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules --no-print-directory
# Go uses every core by itself, and tests come in layers, cheapest first.
.NOTPARALLEL:

MODULE := github.com/nixfleet/nixfleet
ROOT := $(patsubst %/,%,$(dir $(abspath $(firstword $(MAKEFILE_LIST)))))
BIN_DIR := bin
BIN := $(ROOT)/$(BIN_DIR)

# The modules that are linted, tested and tidied, and the one that pins tools.
MODULES := . cmd/control-plane
TOOLS_MODULE := hack/tools

VERSION ?= $(shell git describe --tags --match 'v*' --dirty 2>/dev/null || echo v0.0.0-dev)
COMMIT ?= $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)

# Everything but tests is compiled without cgo, so that programs run on any Linux
# and lint finds what a build left in Go's build cache: compiling Kubernetes takes
# minutes, and Go does it once for each set of flags.
export CGO_ENABLED := 0
GO ?= go
GO_BUILD = $(GO) build -trimpath
GO_LDFLAGS = -X $(MODULE)/internal/version.Version=$(VERSION) -X $(MODULE)/internal/version.Commit=$(COMMIT)

# The race detector needs cgo, hence a C compiler.
GO_TEST = CGO_ENABLED=1 $(GO) test $(GO_TEST_FLAGS)
GO_TEST_FLAGS ?= -race
# Packages that are tested at the same time. An integration test runs an API server
# and etcd of its own, so this stays small on large machines too.
INTEGRATION_PARALLEL ?= 2
INTEGRATION_TIMEOUT ?= 20m

PROGRAMS := $(addprefix $(BIN_DIR)/,nixfleet-manager nixfleet-agent kubectl-nixfleet nixfleet-control-plane)

# What "make generated" runs, in this order. A fragment in hack/make that generates
# something appends its target.
GENERATED_TARGETS := generate manifests

CONTROLLER_GEN := $(BIN)/controller-gen
GOLANGCI_LINT := $(BIN)/golangci-lint

# An API server and etcd that someone brought along are used as they are.
ifdef KUBEBUILDER_ASSETS
ENVTEST_TARGET := check-envtest-assets
else
ENVTEST_TARGET := envtest-assets
KUBEBUILDER_ASSETS := $(BIN)
endif

include $(sort $(wildcard hack/make/*.mk))

##@ General

.PHONY: help
help: ## Explain every target.
	@awk 'BEGIN { FS = ":.*## " } \
		/^##@ / { name[++n] = ""; text[n] = substr($$0, 5) } \
		/^[a-zA-Z0-9_-]+:.*## / { name[++n] = $$1; text[n] = $$2; if (length($$1) > width) width = length($$1) } \
		END { print "Usage: make TARGET [VARIABLE=value ...]"; \
			for (i = 1; i <= n; i++) \
				if (name[i] == "") printf "\n%s\n", text[i]; \
				else printf "  %-" width "s  %s\n", name[i], text[i] }' $(MAKEFILE_LIST)

.PHONY: clean
clean: ## Stop fleets that the demo left running, and remove bin/. Go's caches stay.
	hack/clean-demo.sh
	rm -rf $(BIN)

##@ Generate

.PHONY: generate
generate: $(CONTROLLER_GEN) ## Generate the deepcopy functions of the API types.
	$(CONTROLLER_GEN) object:headerFile=hack/boilerplate.go.txt paths=./api/...

.PHONY: manifests
manifests: $(CONTROLLER_GEN) ## Generate the CustomResourceDefinitions in config/crd/bases.
	$(CONTROLLER_GEN) crd paths=./api/... output:crd:dir=config/crd/bases

.PHONY: tidy
tidy: ## Tidy go.mod and go.sum of every module.
	for module in $(MODULES) $(TOOLS_MODULE); do (cd $$module && $(GO) mod tidy); done

.PHONY: fmt
fmt: $(GOLANGCI_LINT) ## Format all Go files: gofmt -s, and imports in groups.
	$(GOLANGCI_LINT) fmt

.PHONY: generated
generated: ## Regenerate, format and tidy everything that "make verify" looks at.
	for target in $(GENERATED_TARGETS) fmt tidy; do $(MAKE) $$target; done

##@ Check

.PHONY: lint
lint: lint-go lint-shell ## Run all linters.

.PHONY: lint-go
lint-go: $(GOLANGCI_LINT) ## Lint the Go code of both modules, the API types by the Kubernetes API conventions.
	@failed=; \
	for module in $(MODULES); do \
		echo "golangci-lint run in $$module"; \
		(cd $$module && GOFLAGS="$$($(GO) env GOFLAGS) -trimpath" $(GOLANGCI_LINT) run ./...) || failed=1; \
	done; \
	[[ -z $$failed ]]

.PHONY: lint-shell
lint-shell: ## Lint the shell scripts, where shellcheck is installed.
	hack/lint-shell.sh

.PHONY: verify
verify: ## Fail with the diff if anything generated, formatted or tidied is out of date; then lint.
	hack/verify.sh $(MAKE) generated
	$(MAKE) lint

.PHONY: vulncheck
vulncheck: $(BIN)/govulncheck ## Look for known vulnerabilities that the code can reach (needs vuln.go.dev).
	for module in $(MODULES); do (cd $$module && $(BIN)/govulncheck ./...); done

##@ Test

.PHONY: test
test: test-unit test-simulation test-integration ## Run all tests of both modules with the race detector.

.PHONY: test-unit
test-unit: ## Run the tests that need no network, no root, no API server and no Nix.
	@for module in $(MODULES); do \
		echo "go test in $$module"; \
		(cd $$module && $(GO_TEST) ./...); \
	done

# The planner has one goroutine, so the race detector, which is on in test-unit, has
# nothing to find in more of the same.
SIM_HISTORIES ?= 20000
.PHONY: test-simulation
test-simulation: ## Play random histories of rollouts: planner, hosts and operators under faults; SIM_HISTORIES=n.
	SIM_HISTORIES=$(SIM_HISTORIES) $(GO) test -count=1 -timeout 60m -run '^TestHistories$$' ./internal/rollout

.PHONY: test-integration
test-integration: $(ENVTEST_TARGET) ensure-nix ## Run the tests that need a real API server or real Nix.
	@for module in $(MODULES); do \
		packages=$$(hack/integration-packages.sh $$module); \
		[[ -n $$packages ]] || { echo "no integration tests in $$module"; continue; }; \
		echo "go test -tags integration in $$module: $$packages"; \
		(cd $$module && KUBEBUILDER_ASSETS=$(KUBEBUILDER_ASSETS) $(GO_TEST) \
			-tags integration -p $(INTEGRATION_PARALLEL) -timeout $(INTEGRATION_TIMEOUT) $$packages); \
	done

.PHONY: test-systemd
test-systemd: ## Run the tests that need real systemd, in a container; needs root.
	hack/test-systemd.sh

.PHONY: demo
demo: build kubectl ensure-nix ## Run the main job on real parts on this machine; KEEP=1 leaves the fleet running.
	$(GO) build -o $(BIN_DIR)/demo ./hack/demo
	KEEP=$(KEEP) exec $(BIN_DIR)/demo

.PHONY: demo-chaos
demo-chaos: build kubectl ensure-nix ## Kill the control plane and each agent in the middle of a rollout, which has to end the same.
	$(GO) build -o $(BIN_DIR)/demo ./hack/demo
	KEEP=$(KEEP) exec $(BIN_DIR)/demo -chaos

##@ Build

.PHONY: build
build: $(PROGRAMS) ## Build all programs into bin/.

.PHONY: build-darwin
build-darwin: ## Compile the agent for macOS, on Apple silicon and Intel.
	for arch in arm64 amd64; do \
		GOOS=darwin GOARCH=$$arch $(GO_BUILD) -o /dev/null ./cmd/node-agent; \
	done

# Go knows better than make what is out of date: programs are always handed to it.
$(BIN_DIR)/nixfleet-manager: FORCE
	$(GO_BUILD) -ldflags '$(GO_LDFLAGS)' -o $@ ./cmd/manager

$(BIN_DIR)/nixfleet-agent: FORCE
	$(GO_BUILD) -ldflags '$(GO_LDFLAGS)' -o $@ ./cmd/node-agent

$(BIN_DIR)/kubectl-nixfleet: FORCE
	$(GO_BUILD) -ldflags '$(GO_LDFLAGS)' -o $@ ./cmd/kubectl-nixfleet

.PHONY: FORCE
FORCE:

##@ Tools

.PHONY: check-envtest-assets
check-envtest-assets:
	@for program in kube-apiserver etcd; do \
		[[ -x $(KUBEBUILDER_ASSETS)/$$program ]] || { \
			echo "KUBEBUILDER_ASSETS=$(KUBEBUILDER_ASSETS) has no $$program; unset it to have one built" >&2; exit 1; }; \
	done

.PHONY: ensure-nix
ensure-nix: ## Install Nix on Debian and Ubuntu when run as root; elsewhere say what to install.
	hack/ensure-nix.sh

.PHONY: tools
tools: $(CONTROLLER_GEN) $(GOLANGCI_LINT) ## Build the pinned tools into bin/.

TOOLS_PINS := $(TOOLS_MODULE)/go.mod $(TOOLS_MODULE)/go.sum

$(CONTROLLER_GEN): $(TOOLS_PINS)
	cd $(TOOLS_MODULE) && $(GO_BUILD) -o $@ sigs.k8s.io/controller-tools/cmd/controller-gen

$(GOLANGCI_LINT): $(TOOLS_PINS) $(TOOLS_MODULE)/golangci-lint/main.go
	cd $(TOOLS_MODULE) && $(GO_BUILD) -o $@ ./golangci-lint

$(BIN)/govulncheck: $(TOOLS_PINS)
	cd $(TOOLS_MODULE) && $(GO_BUILD) -o $@ golang.org/x/vuln/cmd/govulncheck
