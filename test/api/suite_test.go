//go:build integration

// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package api

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/testenv"
)

// env is the API server of this package's tests; nothing changes it after TestMain.
var env *testenv.Env

func TestMain(m *testing.M) {
	os.Exit(testenv.Run(m, func(e *testenv.Env) { env = e }))
}

// object is an object as a user writes it: a test must be able to send what the Go
// types cannot say.
type object = unstructured.Unstructured

// parse reads an object as a user writes it.
func parse(t testing.TB, manifest string) *object {
	t.Helper()
	var content any
	if err := yaml.UnmarshalStrict([]byte(manifest), &content); err != nil {
		t.Fatalf("%v in:\n%s", err, manifest)
	}
	return newObject(t, content)
}

// jsonValue gives a value the types that a decoder of the API server would.
func jsonValue(t testing.TB, value any) any {
	t.Helper()
	data, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	var decoded any
	if err := json.Unmarshal(data, &decoded); err != nil {
		t.Fatal(err)
	}
	return decoded
}

func newObject(t testing.TB, content any) *object {
	t.Helper()
	fields, ok := jsonValue(t, content).(map[string]any)
	if !ok {
		t.Fatalf("not an object: %v", content)
	}
	return &object{Object: fields}
}

// full reads the object of a kind with every field set, for a namespace.
func full(t testing.TB, kind, namespace string) *object {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", strings.ToLower(kind)+".yaml"))
	if err != nil {
		t.Fatal(err)
	}
	o := parse(t, string(data))
	o.SetNamespace(namespace)
	return o
}

// as is a client that acts with a configuration.
func as(t testing.TB, config *rest.Config) client.Client {
	t.Helper()
	c, err := env.ClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func managerClient(t testing.TB) client.Client {
	t.Helper()
	return as(t, env.ManagerConfig())
}

// mergePatch sends a change as kubectl patch --type=merge does.
func mergePatch(t testing.TB, change map[string]any) client.Patch {
	t.Helper()
	data, err := json.Marshal(change)
	if err != nil {
		t.Fatal(err)
	}
	return client.RawPatch(types.MergePatchType, data)
}

// patchYAML is mergePatch of a change as a user writes it.
func patchYAML(t testing.TB, change string) client.Patch {
	t.Helper()
	data, err := yaml.YAMLToJSON([]byte(change))
	if err != nil {
		t.Fatalf("%v in:\n%s", err, change)
	}
	return client.RawPatch(types.MergePatchType, data)
}

// applyPatch sends the object as kubectl apply --server-side does.
func applyPatch(t testing.TB, o *object) client.Patch {
	t.Helper()
	data, err := json.Marshal(o.Object)
	if err != nil {
		t.Fatal(err)
	}
	return client.RawPatch(types.ApplyPatchType, data)
}

// applyYAML is applyPatch of a manifest.
func applyYAML(ctx context.Context, t testing.TB, c client.Client, owner, manifest string, options ...client.PatchOption) (*object, error) {
	t.Helper()
	o := parse(t, manifest)
	options = append(options, client.FieldOwner(owner))
	return o, c.Patch(ctx, o, applyPatch(t, o), options...)
}

// create stores what is given of the object, without its status.
func create(t testing.TB, c client.Client, o *object) *object {
	t.Helper()
	stored := o.DeepCopy()
	delete(stored.Object, "status")
	if err := c.Create(t.Context(), stored); err != nil {
		t.Fatal(err)
	}
	return stored
}

// newHost stores a Host with nothing but what is required and returns it.
func newHost(t testing.TB, namespace, spec string) *object {
	t.Helper()
	return create(t, env.Client, parse(t, fmt.Sprintf(`
apiVersion: nixfleet.io/v1alpha1
kind: Host
metadata: {namespace: %s, name: host-%s}
spec: %s
`, namespace, rand.String(6), spec)))
}

const minimal = "{platform: x86_64-linux}"

// assign writes spec.desired as the manager does.
func assign(t testing.TB, host *object, desired string) {
	t.Helper()
	if err := managerClient(t).Patch(t.Context(), host, patchYAML(t, "spec: {desired: "+desired+"}")); err != nil {
		t.Fatal(err)
	}
}

// wantRefused checks that the request was refused with a text that a user reads.
func wantRefused(t testing.TB, err error, text string) {
	t.Helper()
	switch {
	case err == nil:
		t.Errorf("accepted, want it refused: %s", text)
	case !apierrors.IsInvalid(err) && !apierrors.IsForbidden(err) && !apierrors.IsBadRequest(err):
		t.Errorf("not a refusal: %v", err)
	case !strings.Contains(err.Error(), text):
		t.Errorf("message:\n%s\nwant in it:\n%s", err, text)
	}
}

// check is wantRefused, or acceptance if there is no text.
func check(t testing.TB, err error, refusal string) {
	t.Helper()
	if refusal != "" {
		wantRefused(t, err, refusal)
	} else if err != nil {
		t.Errorf("refused: %v", err)
	}
}

// with returns an object with a change merged into it: maps are merged, null removes,
// everything else replaces.
func with(t testing.TB, o *object, change string) *object {
	t.Helper()
	changes := map[string]any{}
	if err := yaml.Unmarshal([]byte(change), &changes); err != nil {
		t.Fatalf("%v in:\n%s", err, change)
	}
	return newObject(t, merge(o.DeepCopy().Object, changes))
}

func merge(into, changes map[string]any) map[string]any {
	merged := maps.Clone(into)
	for key, change := range changes {
		inner, isMap := change.(map[string]any)
		old, wasMap := merged[key].(map[string]any)
		switch {
		case change == nil:
			delete(merged, key)
		case isMap && wasMap:
			merged[key] = merge(old, inner)
		default:
			merged[key] = change
		}
	}
	return merged
}

// owners are the names that the tests apply with, other than the project's own.
const (
	gitOwner     = "argocd-controller"
	kubectlOwner = "kubectl"
	agentOwner   = nfv1.FieldOwnerAgent
)
