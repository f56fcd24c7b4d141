// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package bootstrap

import (
	"context"
	"fmt"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"
)

var (
	crdKind     = apiextensionsv1.SchemeGroupVersion.WithKind("CustomResourceDefinition").GroupKind()
	crdResource = apiextensionsv1.SchemeGroupVersion.WithResource("customresourcedefinitions")
)

const establishTimeout = time.Minute

// waitEstablished returns when the custom resource is served, or with what its
// CRD says against it.
func (a *applier) waitEstablished(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, establishTimeout)
	defer cancel()
	client := a.dynamic.Resource(crdResource)
	selector := fields.OneTermEqualSelector(metav1.ObjectNameField, name).String()
	source := cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			options.FieldSelector = selector
			return client.List(ctx, options)
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			options.FieldSelector = selector
			return client.Watch(ctx, options)
		},
	}, a.dynamic)
	last := "it has no conditions"
	_, err := watchtools.UntilWithSync(ctx, source, &unstructured.Unstructured{}, nil, func(event watch.Event) (bool, error) {
		crd := &apiextensionsv1.CustomResourceDefinition{}
		object, ok := event.Object.(*unstructured.Unstructured)
		if !ok {
			return false, fmt.Errorf("the watch sent a %T", event.Object)
		}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, crd); err != nil {
			return false, err
		}
		var done bool
		done, last = established(crd)
		return done, nil
	})
	if err != nil {
		return fmt.Errorf("CustomResourceDefinition %s is not served: %s: %w", name, last, err)
	}
	return nil
}

// established says whether the custom resource is served, else why not.
func established(crd *apiextensionsv1.CustomResourceDefinition) (done bool, why string) {
	why = "it has no conditions"
	for _, condition := range crd.Status.Conditions {
		switch {
		case condition.Type == apiextensionsv1.Established && condition.Status == apiextensionsv1.ConditionTrue:
			return true, ""
		case condition.Status == apiextensionsv1.ConditionFalse:
			why = fmt.Sprintf("%s is False: %s", condition.Type, condition.Message)
		}
	}
	return false, why
}
