# SPDX-License-Identifier: Apache-2.0
# Copyright The NixFleet Authors.
#
# The embedded control plane and, from the same Go module, the upstream programs
# that tests and the demo use: kube-apiserver, etcd, kubectl. Their versions are
# those of the module's go.mod.

CONTROL_PLANE_MODULE := cmd/control-plane
CONTROL_PLANE_PINS := $(CONTROL_PLANE_MODULE)/go.mod $(CONTROL_PLANE_MODULE)/go.sum

# Read from go.mod when a target needs it, and once.
KUBERNETES_VERSION = $(eval KUBERNETES_VERSION := $$(shell cd $(CONTROL_PLANE_MODULE) && $(GO) list -m -f '{{.Version}}' k8s.io/kubernetes))$(KUBERNETES_VERSION)
KUBERNETES_VERSION_PARTS = $(subst ., ,$(KUBERNETES_VERSION:v%=%))

# Kubernetes learns its own version when it is linked; without it clients cannot
# parse what a server says.
KUBERNETES_LDFLAGS = -s -w \
	-X k8s.io/component-base/version.gitVersion=$(KUBERNETES_VERSION) \
	-X k8s.io/component-base/version.gitMajor=$(word 1,$(KUBERNETES_VERSION_PARTS)) \
	-X k8s.io/component-base/version.gitMinor=$(word 2,$(KUBERNETES_VERSION_PARTS))

# $(call build-control-plane,PACKAGE,LDFLAGS) builds the target from the module.
build-control-plane = cd $(CONTROL_PLANE_MODULE) && $(GO_BUILD) -ldflags '$(strip $(2))' -o $(abspath $@) $(1)

##@ Control plane

.PHONY: envtest-assets
envtest-assets: $(BIN_DIR)/kube-apiserver $(BIN_DIR)/etcd ## Build kube-apiserver and etcd from their Go modules; takes minutes the first time.

.PHONY: kubectl
kubectl: $(BIN_DIR)/kubectl ## Build kubectl from its Go module, for machines that have none.

# Linking each of the three takes a minute, and nothing but the versions changes
# them, so make decides. Go gives an up-to-date program a new time, so this ends.
$(BIN_DIR)/kube-apiserver: $(CONTROL_PLANE_PINS)
	$(call build-control-plane,k8s.io/kubernetes/cmd/kube-apiserver,$(KUBERNETES_LDFLAGS))

$(BIN_DIR)/kubectl: $(CONTROL_PLANE_PINS)
	$(call build-control-plane,k8s.io/kubernetes/cmd/kubectl,$(KUBERNETES_LDFLAGS))

$(BIN_DIR)/etcd: $(CONTROL_PLANE_PINS)
	$(call build-control-plane,go.etcd.io/etcd/server/v3,-s -w)

# Our own sources are many and in two modules: go decides.
$(BIN_DIR)/nixfleet-control-plane: FORCE
	$(call build-control-plane,.,$(KUBERNETES_LDFLAGS) $(GO_LDFLAGS))
