// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package bootstrap

import (
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
)

func TestLoad(t *testing.T) {
	const role = "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: %}\n"
	named := func(name string) string { return strings.ReplaceAll(role, "%", name) }
	tests := map[string]struct {
		files map[string]string
		want  []string
		err   string
	}{
		"files by name, documents in order": {
			files: map[string]string{"rbac/b.yaml": named("three"), "rbac/a.yaml": named("one") + "---\n" + named("two")},
			want:  []string{"one", "two", "three"},
		},
		"empty documents and kustomize files are left out": {
			files: map[string]string{
				"rbac/a.yaml":             "# a comment\n---\n" + named("one") + "---\n",
				"rbac/kustomization.yaml": "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [a.yaml]\n",
			},
			want: []string{"one"},
		},
		"other folders are left alone": {
			files: map[string]string{"rbac/a.yaml": named("one"), "policy/b.yaml": "not: {closed"},
			want:  []string{"one"},
		},
		"no manifests": {
			files: map[string]string{"policy/b.yaml": named("one")},
			err:   "there are none",
		},
		"not YAML": {
			files: map[string]string{"rbac/a.yaml": "not: {closed"},
			err:   "manifest rbac/a.yaml",
		},
		"no name": {
			files: map[string]string{"rbac/a.yaml": "apiVersion: v1\nkind: Namespace\n"},
			err:   "has no apiVersion, kind or name",
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			manifests := fstest.MapFS{}
			for path, data := range tc.files {
				manifests[path] = &fstest.MapFile{Data: []byte(data)}
			}

			objects, err := load(manifests, "rbac")

			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Fatalf("got %v, want an error with %q", err, tc.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, object := range objects {
				got = append(got, object.GetName())
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("objects (-want +got):\n%s", diff)
			}
		})
	}
}

func TestEstablished(t *testing.T) {
	condition := func(kind apiextensionsv1.CustomResourceDefinitionConditionType, status apiextensionsv1.ConditionStatus, message string) apiextensionsv1.CustomResourceDefinitionCondition {
		return apiextensionsv1.CustomResourceDefinitionCondition{Type: kind, Status: status, Message: message}
	}
	tests := map[string]struct {
		conditions []apiextensionsv1.CustomResourceDefinitionCondition
		done       bool
		why        string
	}{
		"new": {why: "it has no conditions"},
		"served": {
			conditions: []apiextensionsv1.CustomResourceDefinitionCondition{
				condition(apiextensionsv1.NamesAccepted, apiextensionsv1.ConditionTrue, ""),
				condition(apiextensionsv1.Established, apiextensionsv1.ConditionTrue, ""),
			},
			done: true,
		},
		"refused": {
			conditions: []apiextensionsv1.CustomResourceDefinitionCondition{
				condition(apiextensionsv1.NamesAccepted, apiextensionsv1.ConditionFalse, `"nfh" is taken`),
			},
			why: `NamesAccepted is False: "nfh" is taken`,
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			crd := &apiextensionsv1.CustomResourceDefinition{}
			crd.Status.Conditions = tc.conditions
			done, why := established(crd)
			if done != tc.done || why != tc.why {
				t.Errorf("got %v, %q, want %v, %q", done, why, tc.done, tc.why)
			}
		})
	}
}
