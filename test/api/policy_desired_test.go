//go:build integration

// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package api

import (
	"context"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/testenv"
)

// onlyTheController is what everyone but the manager reads.
const onlyTheController = "only the rollout controller writes spec.desired. To move hosts, create a Rollout; " +
	"to adopt what a host runs or to drop its assignment, set spec.override; leave spec.desired out of what you create or apply"

const desired1 = "{revision: 1, intent: None, assignedTime: '2026-11-24T00:00:00Z'}"

// strangers are all who are not the manager, with every right that RBAC knows.
func strangers(t *testing.T) map[string]client.Client {
	const everything = "system:masters"
	return map[string]client.Client{
		"a cluster administrator":             env.Client,
		"the account of agents":               as(t, env.As(testenv.AgentUser, everything)),
		"the default account of the system":   as(t, env.As("system:serviceaccount:nixfleet-system:default", everything)),
		"a manager of another namespace":      as(t, env.As("system:serviceaccount:default:nixfleet-manager", everything)),
		"a user with a name that begins so":   as(t, env.As(testenv.ManagerUser+"-2", everything)),
		"a member of a group of that name":    as(t, env.As("mallory", everything, testenv.ManagerUser)),
		"the garbage collector of Kubernetes": as(t, env.As("system:serviceaccount:kube-system:generic-garbage-collector", everything)),
	}
}

func TestDesiredIsRefused(t *testing.T) {
	namespace := env.Namespace(t.Context())
	fresh := newHost(t, namespace, minimal)
	assigned := newHost(t, namespace, minimal)
	assign(t, assigned, desired1)

	writes := map[string]func(t *testing.T, c client.Client) error{
		"create": func(t *testing.T, c client.Client) error {
			return c.Create(t.Context(), with(t, small(t, "Host", namespace), "spec: {desired: "+desired1+"}"), client.DryRunAll)
		},
		"apply to nothing": func(t *testing.T, c client.Client) error {
			_, err := applyYAML(t.Context(), t, c, gitOwner, hostManifest(namespace, "new", "{platform: x86_64-linux, desired: "+desired1+"}"), client.DryRunAll)
			return err
		},
		"set by patch": func(t *testing.T, c client.Client) error {
			return c.Patch(t.Context(), fresh.DeepCopy(), patchYAML(t, "spec: {desired: "+desired1+"}"), client.DryRunAll)
		},
		"set by apply, with force": func(t *testing.T, c client.Client) error {
			_, err := applyYAML(t.Context(), t, c, gitOwner, hostManifest(namespace, fresh.GetName(), "{platform: x86_64-linux, desired: "+desired1+"}"),
				client.DryRunAll, client.ForceOwnership)
			return err
		},
		"change by patch": func(t *testing.T, c client.Client) error {
			return c.Patch(t.Context(), assigned.DeepCopy(), patchYAML(t, "spec: {desired: {revision: 2}}"), client.DryRunAll)
		},
		"change by replace": func(t *testing.T, c client.Client) error {
			return c.Update(t.Context(), with(t, assigned, "spec: {desired: {revision: 2, wave: canary}}"), client.DryRunAll)
		},
	}
	for who, c := range strangers(t) {
		for what, write := range writes {
			t.Run(what+" by "+who, func(t *testing.T) {
				err := write(t, c)
				wantRefused(t, err, onlyTheController)
				if err != nil && !apierrors.IsForbidden(err) {
					t.Errorf("refused as %s, want it Forbidden", apierrors.ReasonForError(err))
				}
			})
		}
	}
	t.Run("nobody removes it", func(t *testing.T) {
		wantRefused(t, env.Client.Patch(t.Context(), assigned.DeepCopy(), patchYAML(t, "spec: {desired: null}"), client.DryRunAll), neverRemoved)
	})
}

func hostManifest(namespace, name, spec string) string {
	return "{apiVersion: nixfleet.io/v1alpha1, kind: Host, metadata: {namespace: " + namespace + ", name: " + name + "}, spec: " + spec + "}"
}

func TestDesiredStays(t *testing.T) {
	namespace := env.Namespace(t.Context())
	host := newHost(t, namespace, minimal)
	assign(t, host, "{revision: 3, "+assignment+", release: {name: a, uid: b}}")

	writes := map[string]func(ctx context.Context, t *testing.T) error{
		"a label": func(ctx context.Context, t *testing.T) error {
			return env.Client.Patch(ctx, host.DeepCopy(), patchYAML(t, "metadata: {labels: {role: web}}"))
		},
		"another field of the spec": func(ctx context.Context, t *testing.T) error {
			return env.Client.Patch(ctx, host.DeepCopy(), patchYAML(t, "spec: {lifecycle: Maintenance}"))
		},
		"replace with what was read": func(ctx context.Context, t *testing.T) error {
			o := host.DeepCopy()
			if err := env.Client.Get(ctx, client.ObjectKeyFromObject(o), o); err != nil {
				return err
			}
			return env.Client.Update(ctx, with(t, o, "spec: {override: {id: a, clear: Desired}}"))
		},
		"the status": func(ctx context.Context, t *testing.T) error {
			return env.Client.Status().Patch(ctx, host.DeepCopy(), patchYAML(t, "status: {phase: Idle}"))
		},
		"a finalizer": func(ctx context.Context, t *testing.T) error {
			return env.Client.Patch(ctx, host.DeepCopy(), patchYAML(t, "metadata: {finalizers: [example.org/keep]}"))
		},
		"an apply without it": func(ctx context.Context, t *testing.T) error {
			_, err := applyYAML(ctx, t, env.Client, gitOwner, hostManifest(namespace, host.GetName(), minimal))
			return err
		},
		"an apply of the very same": func(ctx context.Context, t *testing.T) error {
			_, err := applyYAML(ctx, t, env.Client, kubectlOwner,
				hostManifest(namespace, host.GetName(), "{platform: x86_64-linux, desired: {revision: 3, "+assignment+", release: {name: a, uid: b}}}"))
			return err
		},
	}
	want, _, _ := nested(t, host, "spec", "desired")
	for what, write := range writes {
		t.Run(what, func(t *testing.T) {
			if err := write(t.Context(), t); err != nil {
				t.Fatal(err)
			}
			wantNested(t, host, want, "spec", "desired")
		})
	}
}

func TestTheManagerAssigns(t *testing.T) {
	namespace := env.Namespace(t.Context())
	host := newHost(t, namespace, minimal)
	c := managerClient(t)
	apply := func(t *testing.T, name, desired string) error {
		_, err := applyYAML(t.Context(), t, c, nfv1.FieldOwnerRollout, hostManifest(namespace, name, "{desired: "+desired+"}"), client.ForceOwnership)
		return err
	}
	check(t, apply(t, host.GetName(), desired1), "")
	check(t, apply(t, host.GetName(), "{revision: 2, "+assignment+"}"), "")
	check(t, apply(t, host.GetName(), "{revision: 1, "+assignment+"}"), higherRevision)

	t.Run("it creates no Host", func(t *testing.T) {
		wantRefused(t, c.Create(t.Context(), small(t, "Host", namespace)), `cannot create resource "hosts"`)
	})
	t.Run("an apply to a deleted Host does not make it anew", func(t *testing.T) {
		if err := env.Client.Delete(t.Context(), host.DeepCopy()); err != nil {
			t.Fatal(err)
		}
		wantRefused(t, apply(t, host.GetName(), "{revision: 3, "+assignment+"}"), "spec.platform: Required value")
		_, err := applyYAML(t.Context(), t, c, nfv1.FieldOwnerRollout, hostManifest(namespace, host.GetName(), minimal))
		wantRefused(t, err, `cannot create resource "hosts"`)
	})
}
