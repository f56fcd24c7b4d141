// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package controllers

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/kubernetes/pkg/controller/namespace"
)

// namespaceWorkers is how many namespaces are emptied at the same time.
const namespaceWorkers = 5

type namespaceController struct {
	controller *namespace.NamespaceController
}

func newNamespaceController(ctx context.Context, config *rest.Config, shared informers.SharedInformerFactory) (*namespaceController, error) {
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("client of the namespace controller: %w", err)
	}
	metadataClient, err := metadata.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("client of the namespace controller: %w", err)
	}
	return &namespaceController{controller: namespace.NewNamespaceController(
		ctx,
		client,
		metadataClient,
		client.Discovery().ServerPreferredNamespacedResources,
		shared.Core().V1().Namespaces(),
		resync,
		corev1.FinalizerKubernetes,
	)}, nil
}

func (c *namespaceController) run(ctx context.Context) {
	c.controller.Run(ctx, namespaceWorkers)
}
