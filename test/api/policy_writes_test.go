//go:build integration

// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package api

import (
	"strings"
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/client"
)

func inNamespace(manifest, namespace string) string {
	return strings.ReplaceAll(manifest, "%", namespace)
}

// event is one as the gateway makes it for web-01.
const event = `
apiVersion: events.k8s.io/v1
kind: Event
metadata: {namespace: %, generateName: web-01-}
eventTime: "2026-11-24T00:00:00.000000Z"
reportingController: nixfleet.io/agent
reportingInstance: web-01
type: Normal
reason: Activated
action: Activate
note: it runs
regarding: {apiVersion: nixfleet.io/v1alpha1, kind: Host, namespace: %, name: web-01}
`

func TestAgentRecordsEvents(t *testing.T) {
	ctx := t.Context()
	namespace, elsewhere := env.Namespace(ctx), env.Namespace(ctx)
	own := parse(t, inNamespace(event, namespace))

	check(t, actingFor(t, namespace+"/web-01").Create(ctx, own.DeepCopy()), "")

	for whom, hosts := range foreign(namespace) {
		t.Run("acting for "+whom, func(t *testing.T) {
			wantRefused(t, actingFor(t, hosts...).Create(ctx, own.DeepCopy()), notItsEvent)
		})
	}
	for _, tc := range []struct{ name, change, refused string }{
		{"about another host", "regarding: {name: web-02}", notItsEvent},
		{"about the host of that name in another namespace", "regarding: {namespace: " + elsewhere + "}", notItsEvent},
		{"in another namespace", "metadata: {namespace: " + elsewhere + "}", notItsEvent},
		{"about a Rollout", "regarding: {kind: Rollout}", notAHost},
		{"about another group's Host", "regarding: {apiVersion: example.org/v1}", notAHost},
		{"about a group that begins so", "regarding: {apiVersion: nixfleet.io.example.org/v1}", notAHost},
		{"about nothing", "regarding: null", "involvedObject.namespace: Invalid value"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			wantRefused(t, actingFor(t, namespace+"/web-01").Create(ctx, with(t, own, tc.change)), tc.refused)
		})
	}
	t.Run("another namespace, whole", func(t *testing.T) {
		wantRefused(t, actingFor(t, namespace+"/web-01").Create(ctx, parse(t, inNamespace(event, elsewhere))), notItsEvent)
	})
	t.Run("an event that exists is not rewritten", func(t *testing.T) {
		stored := create(t, env.Client, own)
		change := patchYAML(t, "metadata: {labels: {a: b}}")
		wantRefused(t, actingFor(t, namespace+"/web-01").Patch(ctx, stored.DeepCopy(), change), `cannot patch resource "events"`)
		wantRefused(t, unbound(t, namespace+"/web-02").Patch(ctx, stored.DeepCopy(), change, client.DryRunAll), notItsEvent)
	})
}

const foreignLease = "the manager writes the Leases of hosts alone, which are named nixfleet-host-<name>"

// TestManagerLeases: RBAC grants the manager Leases by any name in any namespace.
func TestManagerLeases(t *testing.T) {
	ctx := t.Context()
	namespace := env.Namespace(ctx)
	c := managerClient(t)
	const manifest = "{apiVersion: coordination.k8s.io/v1, kind: Lease, metadata: {namespace: %, name: NAME}, spec: {leaseDurationSeconds: 60}}"
	leaseNamed := func(name string) string { return strings.Replace(inNamespace(manifest, namespace), "NAME", name, 1) }

	own, err := applyYAML(ctx, t, c, "nixfleet-host", leaseNamed("nixfleet-host-web-01"))
	check(t, err, "")
	check(t, c.Patch(ctx, own.DeepCopy(), patchYAML(t, "metadata: {labels: {a: b}}")), "")
	check(t, c.Delete(ctx, own), "")

	other := lease(t, namespace, "kube-scheduler")
	_, err = applyYAML(ctx, t, c, "nixfleet-host", leaseNamed("another"))
	wantRefused(t, err, foreignLease)
	wantRefused(t, c.Patch(ctx, other.DeepCopy(), patchYAML(t, "spec: {holderIdentity: nixfleet}")), foreignLease)
	wantRefused(t, c.Delete(ctx, other.DeepCopy()), foreignLease)

	t.Run("its own, in its own namespace", func(t *testing.T) {
		o := parse(t, "{apiVersion: coordination.k8s.io/v1, kind: Lease, metadata: {namespace: nixfleet-system, name: leader}}")
		check(t, c.Create(ctx, o), "")
		check(t, c.Update(ctx, with(t, o, "spec: {holderIdentity: a}")), "")
	})
}
