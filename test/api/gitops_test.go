//go:build integration

// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package api

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

// nested reads the object anew and returns a field of it.
func nested(t testing.TB, o *object, fields ...string) (value any, found bool, stored *object) {
	t.Helper()
	stored = o.DeepCopy()
	if err := env.Client.Get(t.Context(), client.ObjectKeyFromObject(o), stored); err != nil {
		t.Fatal(err)
	}
	value, found, err := unstructured.NestedFieldCopy(stored.Object, fields...)
	if err != nil {
		t.Fatal(err)
	}
	return value, found, stored
}

// wantNested checks a field of the object as it is stored; nil is one that is not set.
func wantNested(t testing.TB, o *object, want any, fields ...string) {
	t.Helper()
	got, _, _ := nested(t, o, fields...)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%v (-want +got):\n%s", fields, diff)
	}
}

// TestGitOps has Git apply manifests over and over while controllers and people write
// what Git leaves out.
func TestGitOps(t *testing.T) {
	ctx := t.Context()
	namespace := env.Namespace(ctx)
	git := func(t *testing.T, manifest string) *object {
		t.Helper()
		o, err := applyYAML(ctx, t, env.Client, gitOwner, manifest, client.ForceOwnership)
		if err != nil {
			t.Fatal(err)
		}
		return o
	}

	t.Run("a Host without desired never loses it", func(t *testing.T) {
		const spec = "{platform: x86_64-linux, identity: {publicKeys: ['" + gitKey + "']}}"
		host := git(t, hostManifest(namespace, "assigned", spec))
		applyAs(ctx, t, managerClient(t), nfv1.FieldOwnerRollout, hostManifest(namespace, "assigned", "{desired: {revision: 1, "+assignment+"}}"))
		want, found, _ := nested(t, host, "spec", "desired")
		if !found {
			t.Fatal("the manager's assignment is not there")
		}
		for _, again := range []string{spec, spec, "{platform: x86_64-linux}", "{platform: x86_64-linux, lifecycle: Maintenance}"} {
			git(t, hostManifest(namespace, "assigned", again))
			wantNested(t, host, want, "spec", "desired")
		}
		wantNested(t, host, "Maintenance", "spec", "lifecycle")
	})
	t.Run("a key that the gateway pinned stays beside those in Git", func(t *testing.T) {
		const spec = "{platform: x86_64-linux, identity: {publicKeys: ['" + gitKey + "']}}"
		host := git(t, hostManifest(namespace, "enrolled", spec))
		applyAs(ctx, t, managerClient(t), nfv1.FieldOwnerGateway, hostManifest(namespace, "enrolled", "{identity: {publicKeys: ['"+enrolledKey+"']}}"))
		git(t, hostManifest(namespace, "enrolled", spec))
		wantNested(t, host, []any{gitKey, enrolledKey}, "spec", "identity", "publicKeys")
	})
	t.Run("leaving the keys out revokes them", func(t *testing.T) {
		host := git(t, hostManifest(namespace, "revoked", "{platform: x86_64-linux, identity: {publicKeys: ['"+gitKey+"']}}"))
		git(t, hostManifest(namespace, "revoked", minimal))
		wantNested(t, host, nil, "spec", "identity", "publicKeys")
	})
	t.Run("an override that is left out is gone", func(t *testing.T) {
		host := git(t, hostManifest(namespace, "overridden", "{platform: x86_64-linux, override: {id: a, clear: Desired}}"))
		git(t, hostManifest(namespace, "overridden", minimal))
		wantNested(t, host, nil, "spec", "override")
	})
	t.Run("a Rollout stays paused, retried and approved", func(t *testing.T) {
		manifest := "{apiVersion: nixfleet.io/v1alpha1, kind: Rollout, metadata: {namespace: " + namespace + ", name: b}, " +
			"spec: {release: b, selector: {}, strategy: {type: Staged, waves: [{name: canary, size: 1}, {name: rest, approval: Required}]}}}"
		rollout := git(t, manifest)
		if err := env.Client.Patch(ctx, rollout.DeepCopy(), patchYAML(t, "spec: {state: Paused, attempt: 2, approvedWaves: [rest]}")); err != nil {
			t.Fatal(err)
		}
		git(t, manifest)
		wantNested(t, rollout, "Paused", "spec", "state")
		wantNested(t, rollout, int64(2), "spec", "attempt")
		wantNested(t, rollout, []any{"rest"}, "spec", "approvedWaves")
	})
	t.Run("a Release that is applied again is the same", func(t *testing.T) {
		manifest := "{apiVersion: nixfleet.io/v1alpha1, kind: Release, metadata: {namespace: " + namespace + ", name: b}, spec: " + smallest["Release"] + "}"
		generation := git(t, manifest).GetGeneration()
		if again := git(t, manifest).GetGeneration(); again != generation {
			t.Errorf("generation %d became %d", generation, again)
		}
	})
}

const (
	gitKey      = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ1dJZlVYVXlO0ZzQyqfLkP0XWFQyCyBt0bPDWcU0gWz root@git"
	enrolledKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBaNc8m3mBn3nYRNmmn5JL0kl6rm2aEGQsglB1S9VqHH root@enrolled"
)

func applyAs(ctx context.Context, t *testing.T, c client.Client, owner, manifest string) {
	t.Helper()
	if _, err := applyYAML(ctx, t, c, owner, manifest, client.ForceOwnership); err != nil {
		t.Fatal(err)
	}
}
