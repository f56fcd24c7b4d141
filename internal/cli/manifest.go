// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/cli-runtime/pkg/resource"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

// planFieldManager owns the fields of a dry run, which stores nothing.
const planFieldManager = "kubectl-nixfleet-plan"

// manifest is what a file asks the API for: a Rollout, and the Releases beside it.
type manifest struct {
	rollout  *nfv1.Rollout
	releases []*nfv1.Release
}

// isFile tells a file from the name of a Rollout, which never has these.
func isFile(arg string) bool {
	if arg == "-" || strings.ContainsAny(arg, `/\`) {
		return true
	}
	for _, suffix := range []string{".yaml", ".yml", ".json"} {
		if strings.HasSuffix(arg, suffix) {
			return true
		}
	}
	return false
}

// readManifest reads a file, or standard input for "-", and lets the API server fill in
// and check every object of it, as it would when they are applied. Nothing is stored.
func (f *factory) readManifest(ctx context.Context, a *api, file string) (manifest, error) {
	var m manifest
	builder := resource.NewBuilder(f.config).Unstructured().Local().ContinueOnError().Flatten()
	if file == "-" {
		builder, file = builder.Stream(f.streams.In, "standard input"), "standard input"
	} else {
		builder = builder.Path(false, file)
	}
	infos, err := builder.Do().Infos()
	if err != nil {
		return m, fmt.Errorf("read %s: %w", file, err)
	}
	for _, info := range infos {
		object, ok := info.Object.(*unstructured.Unstructured)
		if !ok {
			return m, fmt.Errorf("read %s: %s is a %T", file, info.ObjectName(), info.Object)
		}
		if err := m.add(ctx, a, object); err != nil {
			return m, fmt.Errorf("%s: %w", file, err)
		}
	}
	if m.rollout == nil {
		return m, fmt.Errorf("%s has no Rollout of %s", file, nfv1.GroupVersion)
	}
	return m, nil
}

// add lets the API server check an object and keeps the answer.
func (m *manifest) add(ctx context.Context, a *api, object *unstructured.Unstructured) error {
	if object.GetAPIVersion() != nfv1.GroupVersion.String() {
		return fmt.Errorf("%s %s is not of %s: a plan takes a Rollout, and Releases", object.GetKind(), object.GetName(), nfv1.GroupVersion)
	}
	switch object.GetKind() {
	case "Rollout":
		if m.rollout != nil {
			return errors.New("there are several Rollouts: plan one at a time")
		}
		m.rollout = &nfv1.Rollout{}
		return a.dryRun(ctx, rolloutsResource, object, m.rollout)
	case "Release":
		rel := &nfv1.Release{}
		m.releases = append(m.releases, rel)
		return a.dryRun(ctx, releasesResource, object, rel)
	default:
		return fmt.Errorf("%s %s: a plan takes a Rollout, and Releases", object.GetKind(), object.GetName())
	}
}

// dryRun applies an object without storing it: the answer has the defaults, and every
// rule was checked.
func (a *api) dryRun(ctx context.Context, kind string, object *unstructured.Unstructured, into runtime.Object) error {
	name, namespace := object.GetName(), object.GetNamespace()
	if name == "" {
		return fmt.Errorf("%s: metadata.name is missing (generateName cannot be planned)", object.GetKind())
	}
	if namespace == "" {
		namespace = a.namespace
		object.SetNamespace(namespace)
	}
	if a.namespaceGiven && namespace != a.namespace {
		return fmt.Errorf("%s %s is in namespace %s, and --namespace says %s", object.GetKind(), name, namespace, a.namespace)
	}
	body, err := json.Marshal(object)
	if err != nil {
		return fmt.Errorf("%s %s: %w", object.GetKind(), name, err)
	}
	force := true
	options := metav1.PatchOptions{
		DryRun: []string{metav1.DryRunAll}, FieldManager: planFieldManager, FieldValidation: metav1.FieldValidationStrict, Force: &force,
	}
	err = a.fleet.Patch(types.ApplyPatchType).Namespace(namespace).Resource(kind).Name(name).
		VersionedParams(&options, metav1.ParameterCodec).Body(body).Do(ctx).Into(into)
	if err != nil {
		return explainDryRun(object.GetKind(), name, err)
	}
	return nil
}

// explainDryRun adds to an error of the API what to do about it.
func explainDryRun(kind, name string, err error) error {
	switch {
	case apierrors.IsForbidden(err):
		return fmt.Errorf("check %s %s: %w (a plan asks the API server to check the file, which takes the right to create and patch it)", kind, name, err)
	case apierrors.IsNotFound(err):
		return fmt.Errorf("check %s %s: %w (is NixFleet installed there, and does the namespace exist?)", kind, name, err)
	default:
		return fmt.Errorf("check %s %s: %w", kind, name, err)
	}
}
