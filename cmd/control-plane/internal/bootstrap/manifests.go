// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package bootstrap

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
)

// folders are applied in this order. Policies come before RBAC: a right must
// never be granted for a moment without the policy that narrows it.
var folders = []string{"crd/bases", "policy", "rbac"}

const (
	// kustomizeGroup is that of files which steer kustomize and are not for
	// the API server.
	kustomizeGroup = "kustomize.config.k8s.io"

	decodeBuffer = 4096
)

// load reads the objects of one folder in the order of file names. A folder
// without objects is an error: the binary would have been built without its
// manifests.
func load(manifests fs.FS, folder string) ([]*unstructured.Unstructured, error) {
	files, err := fs.Glob(manifests, path.Join(folder, "*.yaml"))
	if err != nil {
		return nil, fmt.Errorf("manifests %s: %w", folder, err)
	}
	var objects []*unstructured.Unstructured
	for _, name := range files {
		decoded, err := loadFile(manifests, name)
		if err != nil {
			return nil, fmt.Errorf("manifest %s: %w", name, err)
		}
		objects = append(objects, decoded...)
	}
	if len(objects) == 0 {
		return nil, fmt.Errorf("manifests %s: there are none", folder)
	}
	return objects, nil
}

func loadFile(manifests fs.FS, name string) ([]*unstructured.Unstructured, error) {
	file, err := manifests.Open(name)
	if err != nil {
		return nil, err
	}
	objects, err := decode(file)
	return objects, errors.Join(err, file.Close())
}

// decode reads all documents of a YAML stream, without those for kustomize.
func decode(r io.Reader) ([]*unstructured.Unstructured, error) {
	decoder := yaml.NewYAMLOrJSONDecoder(r, decodeBuffer)
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
		switch {
		case len(object.Object) == 0 || object.GroupVersionKind().Group == kustomizeGroup:
		case object.GetKind() == "" || object.GetAPIVersion() == "" || object.GetName() == "":
			return nil, fmt.Errorf("document %d has no apiVersion, kind or name", len(objects)+1)
		default:
			objects = append(objects, object)
		}
	}
}
