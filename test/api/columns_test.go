//go:build integration

// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package api

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/json"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/client"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

// TestColumns asks for the table that kubectl get prints: the columns with priority 0,
// and the others with -o wide.
func TestColumns(t *testing.T) {
	// Name, and at most six: what fits a terminal.
	const most = 7
	for kind, want := range map[string]struct{ narrow, wide, cells []string }{
		"Host": {
			narrow: []string{"Name", "Release", "Phase", "Online", "Healthy", "UpToDate", "Age"},
			wide:   []string{"Platform", "Lifecycle", "Rollout", "Wave", "Outcome", "Running"},
			cells: []string{"full", "a", "Idle", "<nil>", "<nil>", "<nil>", "", "x86_64-linux", "Active", "a", "canary", "Succeeded",
				"/nix/store/" + digest + "-nixos-system-full-26.05"},
		},
		"Release": {
			narrow: []string{"Name", "Hosts", "Verified", "Reason", "Revision", "Age"},
			wide:   []string{"InUse", "Download", "Message"},
			cells:  []string{"full", "1", "True", "Verified", "0123456789abcdef0123456789abcdef01234567", "", "<nil>", "100", ""},
		},
		"Rollout": {
			narrow: []string{"Name", "Release", "Phase", "Wave", "Updated", "Failed", "Age"},
			wide:   []string{"Deferred", "Message"},
			cells:  []string{"full", "a", "Progressing", "1/2", "0/1", "0", "", "0", "wave canary is open"},
		},
	} {
		t.Run(kind, func(t *testing.T) {
			table := tableOf(t, kind, stored(t, kind))
			var narrow, wide []string
			for _, column := range table.ColumnDefinitions {
				if column.Priority == 0 {
					narrow = append(narrow, column.Name)
				} else {
					wide = append(wide, column.Name)
				}
			}
			if diff := cmp.Diff(want.narrow, narrow); diff != "" {
				t.Errorf("columns (-want +got):\n%s", diff)
			}
			if len(narrow) > most {
				t.Errorf("%d columns, want at most %d: %v", len(narrow), most, narrow)
			}
			if diff := cmp.Diff(want.wide, wide); diff != "" {
				t.Errorf("wide columns (-want +got):\n%s", diff)
			}
			checkCells(t, table, want.cells)
		})
	}
}

// checkCells compares the one row; the age is not known.
func checkCells(t *testing.T, table *metav1.Table, want []string) {
	t.Helper()
	if len(table.Rows) != 1 {
		t.Fatalf("%d rows, want 1", len(table.Rows))
	}
	var got []string
	for i, cell := range table.Rows[0].Cells {
		if table.ColumnDefinitions[i].Name == "Age" {
			cell = ""
		}
		got = append(got, fmt.Sprint(cell))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("cells (-want +got):\n%s", diff)
	}
}

// stored stores the full object of a kind, each part written by whom it belongs to.
func stored(t *testing.T, kind string) *object {
	t.Helper()
	whole := full(t, kind, env.Namespace(t.Context()))
	bare := whole.DeepCopy()
	desired, assigned := fieldsAt(t, bare.Object, "spec")["desired"]
	delete(fieldsAt(t, bare.Object, "spec"), "desired")
	o := create(t, env.Client, bare)
	if assigned {
		if err := managerClient(t).Patch(t.Context(), o, mergePatch(t, map[string]any{"spec": map[string]any{"desired": desired}})); err != nil {
			t.Fatal(err)
		}
	}
	if err := env.Client.Status().Patch(t.Context(), o, mergePatch(t, map[string]any{"status": whole.Object["status"]})); err != nil {
		t.Fatal(err)
	}
	return o
}

func tableOf(t *testing.T, kind string, o *object) *metav1.Table {
	t.Helper()
	clients, err := kubernetes.NewForConfig(env.Config)
	if err != nil {
		t.Fatal(err)
	}
	data, err := clients.RESTClient().Get().AbsPath("/apis/nixfleet.io/v1alpha1/namespaces", o.GetNamespace(), resources[kind], o.GetName()).
		SetHeader("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io").DoRaw(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	table := &metav1.Table{}
	if err := json.Unmarshal(data, table); err != nil {
		t.Fatal(err)
	}
	return table
}

// TestNames checks what a user may type instead of the plural.
func TestNames(t *testing.T) {
	for kind, short := range map[string]string{"Host": "nfh", "Release": "nfrel", "Rollout": "nfro"} {
		crd := named("CustomResourceDefinition", "")
		crd.SetAPIVersion("apiextensions.k8s.io/v1")
		if err := env.Client.Get(t.Context(), types.NamespacedName{Name: resources[kind] + ".nixfleet.io"}, crd); err != nil {
			t.Fatal(err)
		}
		names := fieldsAt(t, crd.Object, "status.acceptedNames")
		if diff := cmp.Diff([]any{short}, names["shortNames"]); diff != "" {
			t.Errorf("short names of %s (-want +got):\n%s", kind, diff)
		}
		if diff := cmp.Diff([]any{"nixfleet"}, names["categories"]); diff != "" {
			t.Errorf("categories of %s (-want +got):\n%s", kind, diff)
		}
	}
}

// TestSelectableFields lists with each field selector that the kinds offer.
func TestSelectableFields(t *testing.T) {
	namespace := env.Namespace(t.Context())
	for kind, tc := range map[string]struct{ other, selector string }{
		"Host":    {"{lifecycle: Pending, platform: aarch64-linux}", "spec.lifecycle=Pending,spec.platform=aarch64-linux"},
		"Rollout": {"{release: b}", "spec.release=b"},
	} {
		create(t, env.Client, small(t, kind, namespace))
		want := create(t, env.Client, with(t, small(t, kind, namespace), "spec: "+tc.other))
		found := &unstructured.UnstructuredList{}
		found.SetGroupVersionKind(nfv1.GroupVersion.WithKind(kind + "List"))
		if err := env.Client.List(t.Context(), found, client.InNamespace(namespace), &client.ListOptions{Raw: &metav1.ListOptions{FieldSelector: tc.selector}}); err != nil {
			t.Fatal(err)
		}
		if len(found.Items) != 1 || found.Items[0].GetName() != want.GetName() {
			t.Errorf("%s with %s: %d found, want %s alone", kind, tc.selector, len(found.Items), want.GetName())
		}
	}
}
