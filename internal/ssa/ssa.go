// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package ssa

import (
	"context"
	"encoding/json"
	"fmt"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
)

// Precondition says which state of the object a write was decided on.
type Precondition int

const (
	// SameObject refuses the write if the object was deleted or made anew.
	SameObject Precondition = iota
	// SameVersion also refuses it if anyone wrote the object since it was read.
	SameVersion
)

// Status applies status as the whole of what owner has in the status of obj. It takes
// over fields that another owner has. obj is updated to what the server stored; the
// resource version is in it. Errors are those of the API server: NotFound or Conflict
// when the precondition does not hold.
func Status(ctx context.Context, c client.Client, owner string, obj client.Object, pre Precondition, status any) error {
	patch, err := applyPatch(c.Scheme(), obj, pre, "status", status)
	if err != nil {
		return err
	}
	err = c.Status().Patch(ctx, obj, patch, client.FieldOwner(owner), client.ForceOwnership)
	return wrap(obj, "status", err)
}

// SpecField applies value as the field of that name in the spec of obj, as the only
// thing that owner has in the object. Otherwise it is as Status.
func SpecField(ctx context.Context, c client.Client, owner string, obj client.Object, pre Precondition, field string, value any) error {
	content, err := toMap(value)
	if err != nil {
		return wrap(obj, "spec."+field, err)
	}
	patch, err := applyPatch(c.Scheme(), obj, pre, "spec", map[string]any{field: content})
	if err != nil {
		return err
	}
	err = c.Patch(ctx, obj, patch, client.FieldOwner(owner), client.ForceOwnership)
	return wrap(obj, "spec."+field, err)
}

// Finalizers applies the finalizers that owner has on obj; none removes them.
// Finalizers of other owners stay.
func Finalizers(ctx context.Context, c client.Client, owner string, obj client.Object, pre Precondition, finalizers ...string) error {
	var meta map[string]any
	if len(finalizers) > 0 {
		meta = map[string]any{"finalizers": finalizers}
	}
	patch, err := applyPatch(c.Scheme(), obj, pre, "metadata", meta)
	if err != nil {
		return err
	}
	err = c.Patch(ctx, obj, patch, client.FieldOwner(owner), client.ForceOwnership)
	return wrap(obj, "finalizers", err)
}

// applyPatch makes the request body. The request is sent as a patch of the typed
// object, not as an apply configuration, because the client's read-your-writes
// guarantee holds for each representation on its own and controllers read typed
// objects.
func applyPatch(scheme *runtime.Scheme, obj client.Object, pre Precondition, field string, value any) (client.Patch, error) {
	gvk, err := apiutil.GVKForObject(obj, scheme)
	if err != nil {
		return nil, wrap(obj, field, err)
	}
	u := &unstructured.Unstructured{Object: map[string]any{}}
	content, err := toMap(value)
	if err != nil {
		return nil, wrap(obj, field, err)
	}
	if content != nil {
		u.Object[field] = content
	}
	u.SetGroupVersionKind(gvk)
	u.SetName(obj.GetName())
	u.SetNamespace(obj.GetNamespace())
	u.SetUID(obj.GetUID())
	if pre == SameVersion {
		u.SetResourceVersion(obj.GetResourceVersion())
	}
	data, err := json.Marshal(u.Object)
	if err != nil {
		return nil, wrap(obj, field, err)
	}
	return client.RawPatch(types.ApplyPatchType, data), nil
}

func toMap(value any) (map[string]any, error) {
	if m, ok := value.(map[string]any); ok {
		return m, nil
	}
	return runtime.DefaultUnstructuredConverter.ToUnstructured(value)
}

func wrap(obj client.Object, what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("apply %s of %T %s: %w", what, obj, client.ObjectKeyFromObject(obj), err)
}
