// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	sigsyaml "sigs.k8s.io/yaml"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

// samples are the files of config/samples, parsed.
type samples struct {
	files map[string][]*unstructured.Unstructured
}

// values are what the files of a fleet hold and the samples can only give examples of.
type values struct {
	platform   nfv1.Platform
	hostKeys   map[string]string
	cacheURL   string
	publicKey  string
	storePaths map[string]map[string]string // release name, host name
}

func loadSamples(dir fs.FS) (*samples, error) {
	names, err := fs.Glob(dir, "*.yaml")
	if err != nil || len(names) == 0 {
		return nil, errors.Join(errors.New("there are no samples"), err)
	}
	s := &samples{files: make(map[string][]*unstructured.Unstructured, len(names))}
	for _, name := range names {
		data, err := fs.ReadFile(dir, name)
		if err != nil {
			return nil, err
		}
		if s.files[name], err = parseDocuments(data); err != nil {
			return nil, fmt.Errorf("sample %s: %w", name, err)
		}
	}
	return s, nil
}

func parseDocuments(data []byte) ([]*unstructured.Unstructured, error) {
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(data), 4096)
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
		if len(object.Object) > 0 {
			objects = append(objects, object)
		}
	}
}

// hostNames are the names of the Hosts, sorted.
func (s *samples) hostNames() []string {
	var names []string
	for _, objects := range s.files {
		for _, o := range objects {
			if o.GetKind() == "Host" {
				names = append(names, o.GetName())
			}
		}
	}
	slices.Sort(names)
	return names
}

// releases returns each Release with the names of its hosts, sorted.
func (s *samples) releases() (map[string][]string, error) {
	all := map[string][]string{}
	for name, objects := range s.files {
		for _, o := range objects {
			if o.GetKind() != "Release" {
				continue
			}
			hosts, _, err := unstructured.NestedStringMap(o.Object, "spec", "hosts")
			if err != nil {
				return nil, fmt.Errorf("sample %s: %w", name, err)
			}
			all[o.GetName()] = slices.Sorted(maps.Keys(hosts))
		}
	}
	return all, nil
}

// render writes each sample into dir, with the values of this fleet in the place of the
// examples. What is not an example stays as it is.
func (s *samples) render(dir string, v values) error {
	for name, objects := range s.files {
		var text bytes.Buffer
		for i, o := range objects {
			filled := o.DeepCopy()
			if err := v.fill(filled); err != nil {
				return fmt.Errorf("sample %s, %s %s: %w", name, o.GetKind(), o.GetName(), err)
			}
			data, err := sigsyaml.Marshal(filled.Object)
			if err != nil {
				return fmt.Errorf("sample %s: %w", name, err)
			}
			if i > 0 {
				text.WriteString("---\n")
			}
			text.Write(data)
		}
		if err := os.WriteFile(path.Join(dir, name), text.Bytes(), 0o600); err != nil {
			return err
		}
	}
	return nil
}

func (v values) fill(o *unstructured.Unstructured) error {
	switch o.GetKind() {
	case "Host":
		return v.fillHost(o)
	case "Release":
		return v.fillRelease(o)
	default:
		return nil
	}
}

func (v values) fillHost(o *unstructured.Unstructured) error {
	key, ok := v.hostKeys[o.GetName()]
	if !ok {
		return errors.New("the fleet has no such host")
	}
	return errors.Join(
		unstructured.SetNestedField(o.Object, string(v.platform), "spec", "platform"),
		unstructured.SetNestedStringSlice(o.Object, []string{key}, "spec", "identity", "publicKeys"),
	)
}

func (v values) fillRelease(o *unstructured.Unstructured) error {
	hosts, _, err := unstructured.NestedStringMap(o.Object, "spec", "hosts")
	if err != nil {
		return err
	}
	for host := range hosts {
		storePath, ok := v.storePaths[o.GetName()][host]
		if !ok {
			return fmt.Errorf("there is no system for host %s", host)
		}
		hosts[host] = storePath
	}
	caches := []any{map[string]any{"url": v.cacheURL, "publicKeys": []any{v.publicKey}}}
	return errors.Join(
		unstructured.SetNestedStringMap(o.Object, hosts, "spec", "hosts"),
		unstructured.SetNestedSlice(o.Object, caches, "spec", "caches"),
	)
}
