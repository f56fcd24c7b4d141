// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package bootstrap

import (
	"context"
	"fmt"
	"io/fs"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
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
// be ready, and returns when the custom resources are served and the policies
// enforced. Applied fields that someone changed by hand go back to what the
// manifests say: this version of the control plane was tested with those.
func Apply(ctx context.Context, config *rest.Config, manifests fs.FS) error {
	a, err := newApplier(config)
	if err != nil {
		return err
	}
	for _, name := range []string{metav1.NamespaceDefault, SystemNamespace} {
		if _, err := a.apply(ctx, namespace(name)); err != nil {
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
	dynamic    dynamic.Interface
	kubernetes kubernetes.Interface
	mapper     meta.RESTMapper
}

func newApplier(config *rest.Config) (*applier, error) {
	dynamicClient, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("client to apply manifests: %w", err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("client to apply manifests: %w", err)
	}
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(client.Discovery()))
	return &applier{dynamic: dynamicClient, kubernetes: client, mapper: mapper}, nil
}

// applyAll applies the objects and waits until they have taken effect: CRDs are
// served, admission policies enforced.
func (a *applier) applyAll(ctx context.Context, objects []*unstructured.Unstructured) error {
	policiesChanged := false
	for _, object := range objects {
		changed, err := a.apply(ctx, object)
		if err != nil {
			return err
		}
		group := object.GroupVersionKind().Group
		policiesChanged = policiesChanged || changed && group == admissionv1.GroupName
	}
	for _, object := range objects {
		if object.GroupVersionKind().GroupKind() != crdKind {
			continue
		}
		if err := a.waitEstablished(ctx, object.GetName()); err != nil {
			return err
		}
	}
	if policiesChanged {
		return waitEnforced(ctx, a.kubernetes)
	}
	return nil
}

// apply applies one object and says whether that changed what is stored.
func (a *applier) apply(ctx context.Context, object *unstructured.Unstructured) (changed bool, err error) {
	kind := object.GroupVersionKind()
	defer func() {
		if err != nil {
			err = fmt.Errorf("apply %s %s: %w", kind.Kind, object.GetName(), err)
		}
	}()
	client, err := a.clientFor(object)
	if err != nil {
		return false, err
	}
	before := ""
	switch stored, err := client.Get(ctx, object.GetName(), metav1.GetOptions{}); {
	case err == nil:
		before = stored.GetResourceVersion()
	case !apierrors.IsNotFound(err):
		return false, err
	}
	applied, err := client.Apply(ctx, object.GetName(), object, metav1.ApplyOptions{FieldManager: fieldManager, Force: true})
	if err != nil {
		return false, err
	}
	return applied.GetResourceVersion() != before, nil
}

func (a *applier) clientFor(object *unstructured.Unstructured) (dynamic.ResourceInterface, error) {
	kind := object.GroupVersionKind()
	mapping, err := a.mapper.RESTMapping(kind.GroupKind(), kind.Version)
	if err != nil {
		return nil, err
	}
	if mapping.Scope.Name() == meta.RESTScopeNameNamespace {
		return a.dynamic.Resource(mapping.Resource).Namespace(object.GetNamespace()), nil
	}
	return a.dynamic.Resource(mapping.Resource), nil
}
