// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

const (
	realKey  = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIrealrealrealrealrealrealrealrealrealrealreal real"
	realPath = "/nix/store/0c0mmgsdhjxf8x4sjzzqvxw1hxsyqbnd-nixos-system-real"
)

func loadReal(t *testing.T) *samples {
	t.Helper()
	s, err := loadSamples(os.DirFS(filepath.Join("..", "..", "config", "samples")))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// fleetValues has a value for everything that the samples need one for.
func fleetValues(t *testing.T, s *samples) values {
	t.Helper()
	v := values{
		platform: "aarch64-linux", cacheURL: "http://127.0.0.1:1", publicKey: "real-1:key",
		hostKeys: map[string]string{}, storePaths: map[string]map[string]string{},
	}
	for _, name := range s.hostNames() {
		v.hostKeys[name] = realKey
	}
	releases, err := s.releases()
	if err != nil {
		t.Fatal(err)
	}
	for release, hosts := range releases {
		v.storePaths[release] = map[string]string{}
		for _, host := range hosts {
			v.storePaths[release][host] = realPath
		}
	}
	return v
}

func TestSamplesAreAFleetOfSix(t *testing.T) {
	want := []string{"db-01", "db-02", "web-01", "web-02", "web-03", "web-04"}
	if diff := cmp.Diff(want, loadReal(t).hostNames()); diff != "" {
		t.Errorf("hosts (-want +got):\n%s", diff)
	}
}

// TestRenderReplacesExamplesAlone compares the rendered files with the samples: nothing
// but the examples may differ, and no example may be left.
func TestRenderReplacesExamplesAlone(t *testing.T) {
	s := loadReal(t)
	dir := t.TempDir()
	if err := s.render(dir, fleetValues(t, s)); err != nil {
		t.Fatal(err)
	}
	rendered, err := loadSamples(os.DirFS(dir))
	if err != nil {
		t.Fatal(err)
	}
	for name, objects := range s.files {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		for _, example := range []string{"example.org", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAII", "x86_64"} {
			if bytes.Contains(data, []byte(example)) {
				t.Errorf("%s still has the example %q", name, example)
			}
		}
		if len(rendered.files[name]) != len(objects) {
			t.Fatalf("%s has %d objects, want %d", name, len(rendered.files[name]), len(objects))
		}
		for i, sample := range objects {
			if diff := cmp.Diff(withoutExamples(sample), withoutExamples(rendered.files[name][i])); diff != "" {
				t.Errorf("%s (-sample +rendered):\n%s", name, diff)
			}
		}
	}
}

func withoutExamples(o *unstructured.Unstructured) map[string]any {
	c := o.DeepCopy()
	for _, field := range [][]string{{"spec", "platform"}, {"spec", "identity", "publicKeys"}, {"spec", "caches"}} {
		unstructured.RemoveNestedField(c.Object, field...)
	}
	if o.GetKind() == "Release" {
		hosts, _, _ := unstructured.NestedStringMap(c.Object, "spec", "hosts")
		names := sortedKeys(hosts)
		_ = unstructured.SetNestedStringSlice(c.Object, names, "spec", "hosts")
	}
	return c.Object
}

func TestRenderRefusesWhatItHasNoValueFor(t *testing.T) {
	s := loadReal(t)
	tests := map[string]struct {
		spoil func(*values)
		want  string
	}{
		"host":   {func(v *values) { delete(v.hostKeys, "web-03") }, "no such host"},
		"system": {func(v *values) { delete(v.storePaths["b"], "db-01") }, "no system for host db-01"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			v := fleetValues(t, s)
			tc.spoil(&v)
			err := s.render(t.TempDir(), v)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q in it", err, tc.want)
			}
		})
	}
}

func TestASampleThatIsNoYAMLIsNamed(t *testing.T) {
	_, err := loadSamples(fstest.MapFS{"broken.yaml": {Data: []byte("a: [")}})
	if err == nil || !strings.Contains(err.Error(), "broken.yaml") {
		t.Errorf("got %v, want the file's name in it", err)
	}
}

func TestShellQuote(t *testing.T) {
	if got, want := shellQuote("it's {a}"), `'it'\''s {a}'`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
