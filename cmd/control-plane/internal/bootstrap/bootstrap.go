// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package bootstrap

import (
	"context"
	"fmt"
	"io/fs"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
)

const (
	// SystemNamespace holds what belongs to NixFleet itself.
	SystemNamespace = "nixfleet-system"

	// fieldManager owns the applied fields: someone else's labels stay.
	fieldManager = "nixfleet-control-plane"
)

// Apply stores the manifests in the API server that config reaches, which must
// be ready, and returns when the custom resources are served. Applied fields
// that someone changed by hand go back to what the manifests say: this version
// of the control plane was tested with those.
func Apply(ctx context.Context, config *rest.Config, manifests fs.FS) error {
	a, err := newApplier(config)
	if err != nil {
		return err
	}
	for _, name := range []string{metav1.NamespaceDefault, SystemNamespace} {
		if err := a.apply(ctx, namespace(name)); err != nil {
			return err
		}
	}
	for _, folder := range folders {
		objects, err := load(manifests, folder)
		if err != nil {
			return err
		}
		if err := a.applyAll(ctx, objects); err != nil {
			return err
		}
	}
	return nil
}

func namespace(name string) *unstructured.Unstructured {
	object := &unstructured.Unstructured{}
	object.SetAPIVersion("v1")
	object.SetKind("Namespace")
	object.SetName(name)
	return object
}

// applier sends objects of any kind.
type applier struct {
	client dynamic.Interface
	mapper meta.RESTMapper
}

func newApplier(config *rest.Config) (*applier, error) {
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("client to apply manifests: %w", err)
	}
	discoverer, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("client to apply manifests: %w", err)
	}
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(discoverer))
	return &applier{client: client, mapper: mapper}, nil
}

// applyAll applies the objects, then waits for the CRDs among them.
func (a *applier) applyAll(ctx context.Context, objects []*unstructured.Unstructured) error {
	for _, object := range objects {
		if err := a.apply(ctx, object); err != nil {
			return err
		}
	}
	for _, object := range objects {
		if object.GroupVersionKind().GroupKind() != crdKind {
			continue
		}
		if err := a.waitEstablished(ctx, object.GetName()); err != nil {
			return err
		}
	}
	return nil
}

func (a *applier) apply(ctx context.Context, object *unstructured.Unstructured) error {
	kind := object.GroupVersionKind()
	mapping, err := a.mapper.RESTMapping(kind.GroupKind(), kind.Version)
	if err != nil {
		return fmt.Errorf("apply %s %s: %w", kind.Kind, object.GetName(), err)
	}
	var client dynamic.ResourceInterface = a.client.Resource(mapping.Resource)
	if mapping.Scope.Name() == meta.RESTScopeNameNamespace {
		client = a.client.Resource(mapping.Resource).Namespace(object.GetNamespace())
	}
	options := metav1.ApplyOptions{FieldManager: fieldManager, Force: true}
	if _, err := client.Apply(ctx, object.GetName(), object, options); err != nil {
		return fmt.Errorf("apply %s %s: %w", kind.Kind, object.GetName(), err)
	}
	return nil
}
