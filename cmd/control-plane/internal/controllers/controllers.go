// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package controllers

import (
	"context"
	"fmt"
	"sync"
	"time"

	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/rest"
)

const (
	// resync is how often informers hand out everything again. The
	// controllers are driven by events; this only bounds a missed one.
	resync = 12 * time.Hour

	serviceAccountPrefix = "system:serviceaccount:kube-system:"
)

// Set is the controllers, ready to run.
type Set struct {
	shared    informers.SharedInformerFactory
	metadata  metadatainformer.SharedInformerFactory
	started   chan struct{}
	namespace *namespaceController
	garbage   *garbageController
}

// New makes the controllers for the API server that config reaches. config
// must be allowed to impersonate: each controller acts under the name of the
// service account whose role Kubernetes ships, so that its rights are bounded
// and policies and logs can tell it from a person. ctx is that of their
// informers and must last as long as Run.
func New(ctx context.Context, config *rest.Config) (*Set, error) {
	watcher := clientConfig(config, "generic-garbage-collector")
	client, err := kubernetes.NewForConfig(watcher)
	if err != nil {
		return nil, fmt.Errorf("client of the controllers: %w", err)
	}
	metadataClient, err := metadata.NewForConfig(watcher)
	if err != nil {
		return nil, fmt.Errorf("client of the controllers: %w", err)
	}
	s := &Set{
		shared:   informers.NewSharedInformerFactory(client, resync),
		metadata: metadatainformer.NewSharedInformerFactory(metadataClient, resync),
		started:  make(chan struct{}),
	}
	if s.namespace, err = newNamespaceController(ctx, clientConfig(config, "namespace-controller"), s.shared); err != nil {
		return nil, err
	}
	if s.garbage, err = newGarbageController(ctx, watcher, s); err != nil {
		return nil, err
	}
	return s, nil
}

// Run runs the controllers until ctx is done and returns when all have ended.
// A Set runs once.
func (s *Set) Run(ctx context.Context) {
	s.shared.Start(ctx.Done())
	s.metadata.Start(ctx.Done())
	close(s.started)

	var running sync.WaitGroup
	running.Go(func() { s.namespace.run(ctx) })
	running.Go(func() { s.garbage.run(ctx) })
	running.Wait()
	s.shared.Shutdown()
	s.metadata.Shutdown()
}

// clientConfig is base under the name of a kube-system service account.
func clientConfig(base *rest.Config, serviceAccount string) *rest.Config {
	config := rest.CopyConfig(base)
	config.Impersonate = rest.ImpersonationConfig{UserName: serviceAccountPrefix + serviceAccount}
	return rest.AddUserAgent(config, serviceAccount)
}
