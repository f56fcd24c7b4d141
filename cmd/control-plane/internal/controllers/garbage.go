// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package controllers

import (
	"context"
	"fmt"
	"sync"
	"time"

	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/controller-manager/pkg/informerfactory"
	"k8s.io/kubernetes/pkg/controller/garbagecollector"
)

const (
	// garbageWorkers is how many objects are looked at, and deleted, at the
	// same time.
	garbageWorkers = 10

	// discoveryPeriod is how soon the collector knows a kind whose CRD was
	// created later.
	discoveryPeriod = 30 * time.Second
)

type garbageController struct {
	collector *garbagecollector.GarbageCollector
	discovery discovery.DiscoveryInterface
}

func newGarbageController(ctx context.Context, config *rest.Config, set *Set) (*garbageController, error) {
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("client of the garbage collector: %w", err)
	}
	metadataClient, err := metadata.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("client of the garbage collector: %w", err)
	}
	collector, err := garbagecollector.NewGarbageCollector(
		ctx,
		client,
		metadataClient,
		restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(client.Discovery())),
		garbagecollector.DefaultIgnoredResources(),
		informerfactory.NewInformerFactory(set.shared, set.metadata),
		set.started,
	)
	if err != nil {
		return nil, fmt.Errorf("garbage collector: %w", err)
	}
	return &garbageController{collector: collector, discovery: client.Discovery()}, nil
}

func (c *garbageController) run(ctx context.Context) {
	var running sync.WaitGroup
	running.Go(func() { c.collector.Run(ctx, garbageWorkers, discoveryPeriod) })
	running.Go(func() { c.collector.Sync(ctx, c.discovery, discoveryPeriod) })
	running.Wait()
}
