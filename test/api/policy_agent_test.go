//go:build integration

// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package api

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/testenv"
)

// hostExtra names the Host that the gateway acts for.
const hostExtra = "nixfleet.io/host"

// What an agent reads that writes for another host, or too much for its own.
const (
	notItsHost    = "an agent writes the status of its own Host alone, and the extra nixfleet.io/host does not name this one"
	onlineIsHeld  = "the condition Online is the host controller's; an agent leaves it as it is"
	notItsLease   = "an agent renews the Lease of its own Host alone, and the extra nixfleet.io/host does not name the Host of this one"
	leaseMetadata = "an agent leaves the labels, annotations, finalizers and owners of its Lease as they are"
	leaseFields   = "an agent changes only holderIdentity, leaseDurationSeconds, acquireTime, renewTime and leaseTransitions of its Lease"
	leaseIsMade   = "the host controller creates the Leases of hosts; an agent renews its own"
	notItsEvent   = "an agent records events about its own Host alone, in the Host's namespace, and the extra nixfleet.io/host does not name this one"
	notAHost      = "an agent records events about its Host alone; regarding must be a Host of nixfleet.io"
)

// actingFor is the gateway writing for hosts, each namespace/name: the manager with
// its own rights, impersonating the account of agents.
func actingFor(t testing.TB, hosts ...string) client.Client {
	t.Helper()
	return as(t, impersonating(env.ManagerConfig(), rest.ImpersonationConfig{UserName: testenv.AgentUser, Extra: extra(hosts)}))
}

// unbound is the account of agents as if RBAC let it do everything, so that a policy
// is seen to hold by itself.
func unbound(t testing.TB, hosts ...string) client.Client {
	t.Helper()
	return as(t, impersonating(env.Config, rest.ImpersonationConfig{UserName: testenv.AgentUser, Groups: []string{"system:masters"}, Extra: extra(hosts)}))
}

func impersonating(config *rest.Config, who rest.ImpersonationConfig) *rest.Config {
	config = rest.CopyConfig(config)
	config.Impersonate = who
	return config
}

func extra(hosts []string) map[string][]string {
	if len(hosts) == 0 {
		return nil
	}
	return map[string][]string{hostExtra: hosts}
}

// foreign are values of the extra that do not name web-01 of the namespace.
func foreign(namespace string) map[string][]string {
	return map[string][]string{
		"another host":                  {namespace + "/web-02"},
		"a host of another namespace":   {"other/web-01"},
		"nobody":                        nil,
		"two hosts, one of them itself": {namespace + "/web-01", namespace + "/web-02"},
		"itself twice":                  {namespace + "/web-01", namespace + "/web-01"},
		"a beginning of its name":       {namespace + "/web-0"},
		"a longer name":                 {namespace + "/web-01x"},
		"its name alone":                {"web-01"},
		"nothing":                       {""},
		"another spelling":              {namespace + "/WEB-01"},
	}
}

// webHost stores web-01 of the namespace with the condition Online, as the host
// controller sets it.
func webHost(t testing.TB, namespace string) *object {
	t.Helper()
	host := create(t, env.Client, parse(t, hostManifest(namespace, "web-01", minimal)))
	status := "status: {conditions: [{type: Online, status: 'True', reason: LeaseRenewed, message: '', lastTransitionTime: '2026-11-24T00:00:00Z'}]}"
	if err := applyStatus(t.Context(), t, managerClient(t), nfv1.FieldOwnerHost, namespace, "web-01", status); err != nil {
		t.Fatal(err)
	}
	return host
}

// applyStatus applies a status as controllers and the gateway do.
func applyStatus(ctx context.Context, t testing.TB, c client.Client, owner, namespace, name, status string) error {
	t.Helper()
	o := parse(t, "{apiVersion: nixfleet.io/v1alpha1, kind: Host, metadata: {namespace: "+namespace+", name: "+name+"}, "+status+"}")
	return c.Status().Patch(ctx, o, applyPatch(t, o), client.FieldOwner(owner), client.ForceOwnership)
}

func TestAgentWritesItsStatus(t *testing.T) {
	ctx := t.Context()
	namespace := env.Namespace(ctx)
	host := webHost(t, namespace)
	own := []string{namespace + "/web-01"}
	const report = "status: {observedGeneration: 1, phase: Idle, conditions: [{type: Healthy, status: 'True', reason: Passed, message: '', lastTransitionTime: '2026-11-24T00:00:00Z'}]}"
	online, _, _ := nested(t, host, "status", "conditions")

	check(t, applyStatus(ctx, t, actingFor(t, own...), agentOwner, namespace, "web-01", report), "")
	wantNested(t, host, "Idle", "status", "phase")
	conditions, _, _ := nested(t, host, "status", "conditions")
	if diff := cmp.Diff(2, len(conditions.([]any))); diff != "" {
		t.Errorf("Online and Healthy stand beside each other (-want +got):\n%s", diff)
	}

	for whom, hosts := range foreign(namespace) {
		t.Run("acting for "+whom, func(t *testing.T) {
			wantRefused(t, applyStatus(ctx, t, actingFor(t, hosts...), agentOwner, namespace, "web-01", report), notItsHost)
		})
	}

	changes := map[string]string{
		"Online is set to False":   "[{type: Online, status: 'False', reason: LeaseExpired, message: '', lastTransitionTime: '2026-11-24T00:00:00Z'}]",
		"the reason of Online":     "[{type: Online, status: 'True', reason: Other, message: '', lastTransitionTime: '2026-11-24T00:00:00Z'}]",
		"the time of Online":       "[{type: Online, status: 'True', reason: LeaseRenewed, message: '', lastTransitionTime: '2026-11-24T00:00:01Z'}]",
		"Online is removed":        "[]",
		"conditions are removed":   "null",
		"Online is left as it was": "",
	}
	for what, conditions := range changes {
		t.Run(what, func(t *testing.T) {
			patch, refused := patchYAML(t, "status: {conditions: "+conditions+"}"), onlineIsHeld
			if conditions == "" {
				patch, refused = mergePatch(t, map[string]any{"status": map[string]any{"conditions": online, "phase": "Fetching"}}), ""
			}
			check(t, actingFor(t, own...).Status().Patch(ctx, host.DeepCopy(), patch, client.DryRunAll), refused)
		})
	}
	t.Run("Online is added", func(t *testing.T) {
		bare := newHost(t, namespace, minimal)
		c := actingFor(t, namespace+"/"+bare.GetName())
		status := "status: {conditions: " + changes["Online is set to False"] + "}"
		wantRefused(t, applyStatus(ctx, t, c, agentOwner, namespace, bare.GetName(), status), onlineIsHeld)
	})
	t.Run("metadata and spec stay", func(t *testing.T) {
		_, _, before := nested(t, host)
		patch := patchYAML(t, "{metadata: {labels: {a: b}, annotations: {a: b}, finalizers: [a.example.org/b], "+
			"ownerReferences: [{apiVersion: v1, kind: Pod, name: a, uid: b}]}, spec: {lifecycle: Decommissioned, desired: "+desired1+"}, status: {phase: Verifying}}")
		check(t, actingFor(t, own...).Status().Patch(ctx, host.DeepCopy(), patch), "")
		wantNested(t, host, "Verifying", "status", "phase")
		wantNested(t, host, before.Object["spec"], "spec")
		_, _, after := nested(t, host)
		before.SetManagedFields(nil)
		after.SetManagedFields(nil)
		before.SetResourceVersion(after.GetResourceVersion())
		if diff := cmp.Diff(before.Object["metadata"], after.Object["metadata"]); diff != "" {
			t.Errorf("metadata (-before +after):\n%s", diff)
		}
	})
	t.Run("a Host that does not exist is not made", func(t *testing.T) {
		err := applyStatus(ctx, t, actingFor(t, namespace+"/gone"), agentOwner, namespace, "gone", report)
		if !apierrors.IsNotFound(err) {
			t.Errorf("got %v, want it not found", err)
		}
	})
	t.Run("a replace is held to the same rules", func(t *testing.T) {
		_, _, stored := nested(t, host)
		wantRefused(t, unbound(t, own...).Status().Update(ctx, with(t, stored, "status: {conditions: []}")), onlineIsHeld)
		wantRefused(t, unbound(t, namespace+"/web-02").Status().Update(ctx, stored.DeepCopy()), notItsHost)
	})
}

// lease stores the Lease of a host as the host controller does.
func lease(t testing.TB, namespace, name string) *object {
	t.Helper()
	return create(t, env.Client, parse(t, `
apiVersion: coordination.k8s.io/v1
kind: Lease
metadata:
  namespace: `+namespace+`
  name: `+name+`
  labels: {nixfleet.io/host: ""}
  ownerReferences: [{apiVersion: nixfleet.io/v1alpha1, kind: Host, name: web-01, uid: 6f8a7c0a-0000-4000-8000-000000000001}]
`))
}

func TestAgentRenewsItsLease(t *testing.T) {
	ctx := t.Context()
	namespace := env.Namespace(ctx)
	own := []string{namespace + "/web-01"}
	stored := lease(t, namespace, nfv1.LeaseName("web-01"))
	const renewal = "{spec: {holderIdentity: web-01, leaseDurationSeconds: 180, renewTime: '2026-11-24T00:00:00.000000Z', acquireTime: '2026-11-24T00:00:00.000000Z', leaseTransitions: 1}}"
	const applied = "{apiVersion: coordination.k8s.io/v1, kind: Lease, metadata: {namespace: %, name: nixfleet-host-web-01}, spec: {renewTime: '2026-11-24T00:01:00.000000Z'}}"

	check(t, actingFor(t, own...).Patch(ctx, stored.DeepCopy(), patchYAML(t, renewal)), "")
	check(t, actingFor(t, own...).Patch(ctx, stored.DeepCopy(), patchYAML(t, renewal)), "")
	_, err := applyYAML(ctx, t, actingFor(t, own...), agentOwner, inNamespace(applied, namespace), client.ForceOwnership)
	check(t, err, "")

	for whom, hosts := range foreign(namespace) {
		t.Run("acting for "+whom, func(t *testing.T) {
			wantRefused(t, actingFor(t, hosts...).Patch(ctx, stored.DeepCopy(), patchYAML(t, renewal)), notItsLease)
		})
	}
	for _, name := range []string{"web-01", "nixfleet-web-01", "nixfleet-host-nixfleet-host-web-01"} {
		t.Run("a Lease named "+name, func(t *testing.T) {
			wantRefused(t, actingFor(t, own...).Patch(ctx, lease(t, namespace, name), patchYAML(t, renewal)), notItsLease)
		})
	}
	for what, change := range map[string]string{
		"labels":      "{metadata: {labels: {nixfleet.io/host: null}}}",
		"a label":     "{metadata: {labels: {a: b}}}",
		"annotations": "{metadata: {annotations: {a: b}}}",
		"finalizers":  "{metadata: {finalizers: [a.example.org/b]}}",
		"an owner":    "{metadata: {ownerReferences: [{apiVersion: v1, kind: Pod, name: a, uid: b}]}}",
		"no owner":    "{metadata: {ownerReferences: null}}",
	} {
		t.Run(what, func(t *testing.T) {
			wantRefused(t, unbound(t, own...).Patch(ctx, stored.DeepCopy(), patchYAML(t, change), client.DryRunAll), leaseMetadata)
		})
	}
	t.Run("other fields of the spec", func(t *testing.T) {
		change := "{spec: {strategy: OldestEmulationVersion}}"
		wantRefused(t, actingFor(t, own...).Patch(ctx, stored.DeepCopy(), patchYAML(t, change), client.DryRunAll), leaseFields)
		change = "{spec: {strategy: OldestEmulationVersion, preferredHolder: web-02}}"
		wantRefused(t, actingFor(t, own...).Patch(ctx, stored.DeepCopy(), patchYAML(t, change), client.DryRunAll), leaseFields)
	})
	t.Run("a Lease that does not exist is not made", func(t *testing.T) {
		manifest := inNamespace("{apiVersion: coordination.k8s.io/v1, kind: Lease, metadata: {namespace: %, name: nixfleet-host-new}}", namespace)
		_, err := applyYAML(ctx, t, actingFor(t, namespace+"/new"), agentOwner, manifest)
		wantRefused(t, err, `cannot create resource "leases"`)
		_, err = applyYAML(ctx, t, unbound(t, namespace+"/new"), agentOwner, manifest)
		wantRefused(t, err, leaseIsMade)
	})
}
