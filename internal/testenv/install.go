// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package testenv

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"

	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/nixfleet/nixfleet/config"
)

const (
	fieldOwner   = client.FieldOwner("nixfleet-testenv")
	decodeBuffer = 4096
)

// install brings config.FS into effect in the order that it asks for.
func (e *Env) install(ctx context.Context) error {
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: SystemNamespace}}
	if err := e.Client.Create(ctx, namespace); err != nil {
		return fmt.Errorf("make namespace %s: %w", SystemNamespace, err)
	}
	if err := e.installCRDs(); err != nil {
		return err
	}
	if err := e.applyFolder(ctx, "policy"); err != nil {
		return err
	}
	if err := e.waitEnforced(ctx); err != nil {
		return err
	}
	return e.applyFolder(ctx, "rbac")
}

// installCRDs returns when the custom resources are served.
func (e *Env) installCRDs() error {
	objects, err := load(config.FS, "crd/bases")
	if err != nil {
		return err
	}
	options := envtest.CRDInstallOptions{Scheme: e.Scheme, MaxTime: setupTimeout}
	for _, object := range objects {
		crd := &apiextensionsv1.CustomResourceDefinition{}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, crd); err != nil {
			return fmt.Errorf("decode CustomResourceDefinition %s: %w", object.GetName(), err)
		}
		options.CRDs = append(options.CRDs, crd)
	}
	_, err = envtest.InstallCRDs(e.Config, options)
	return err
}

func (e *Env) applyFolder(ctx context.Context, folder string) error {
	objects, err := load(config.FS, folder)
	if err != nil {
		return err
	}
	for _, object := range objects {
		if err := e.Client.Apply(ctx, client.ApplyConfigurationFromUnstructured(object), fieldOwner); err != nil {
			return fmt.Errorf("apply %s %s: %w", object.GetKind(), object.GetName(), err)
		}
	}
	return nil
}

// load reads the objects of a folder, without those for kustomize.
func load(manifests fs.FS, folder string) ([]*unstructured.Unstructured, error) {
	files, err := fs.Glob(manifests, path.Join(folder, "*.yaml"))
	if err != nil {
		return nil, err
	}
	var objects []*unstructured.Unstructured
	for _, file := range files {
		data, err := fs.ReadFile(manifests, file)
		if err != nil {
			return nil, err
		}
		decoded, err := decode(data)
		if err != nil {
			return nil, fmt.Errorf("manifest config/%s: %w", file, err)
		}
		objects = append(objects, decoded...)
	}
	if len(objects) == 0 {
		return nil, fmt.Errorf("config/%s has no manifests", folder)
	}
	return objects, nil
}

func decode(data []byte) ([]*unstructured.Unstructured, error) {
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(data), decodeBuffer)
	var objects []*unstructured.Unstructured
	for {
		object := &unstructured.Unstructured{}
		err := decoder.Decode(&object.Object)
		if errors.Is(err, io.EOF) {
			return objects, nil
		}
		if err != nil {
			return nil, err
		}
		if len(object.Object) > 0 && object.GroupVersionKind().Group != "kustomize.config.k8s.io" {
			objects = append(objects, object)
		}
	}
}
