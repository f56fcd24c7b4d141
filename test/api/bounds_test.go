//go:build integration

// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package api

import (
	"fmt"
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/client"
)

// TestLargest stores objects at their bounds and changes them: rules have a budget at
// run time too, and an object that can be stored and not changed would be lost.
func TestLargest(t *testing.T) {
	ctx := t.Context()
	namespace := env.Namespace(ctx)
	const count = 5000

	t.Run("Release", func(t *testing.T) {
		release := small(t, "Release", namespace)
		hosts := make(map[string]any, count)
		for i := range count {
			hosts[fmt.Sprintf("host-%04d.berlin.example.org", i)] = fmt.Sprintf("/nix/store/%s-nixos-system-host-%04d-26.05.20261101.abcdef0", digest, i)
		}
		fieldsAt(t, release.Object, "spec")["hosts"] = hosts
		release = create(t, env.Client, release)

		check(t, env.Client.Patch(ctx, release.DeepCopy(), patchYAML(t, "metadata: {labels: {a: b}}")), "")
		check(t, managerClient(t).Status().Patch(ctx, release.DeepCopy(), patchYAML(t, "status: {observedGeneration: 1}")), "")
		change := patchYAML(t, "spec: {hosts: {host-4999.berlin.example.org: /nix/store/"+digest+"-other}}")
		wantRefused(t, env.Client.Patch(ctx, release.DeepCopy(), change), immutableRelease)
	})
	t.Run("Rollout", func(t *testing.T) {
		rollout := full(t, "Rollout", namespace)
		spec := fieldsAt(t, rollout.Object, "spec")
		hosts, waves := make([]any, 0, count), make([]any, 0, 32)
		for i := range count {
			hosts = append(hosts, fmt.Sprintf("host-%04d.berlin.example.org", i))
		}
		for i := range 31 {
			waves = append(waves, with(t, &object{Object: fieldsAt(t, rollout.Object, "spec.strategy.waves[0]")}, fmt.Sprintf("name: wave-%d", i)).Object)
		}
		spec["hosts"] = hosts
		fieldsAt(t, rollout.Object, "spec.strategy")["waves"] = append(waves, map[string]any{"name": "rest"})
		rollout = create(t, env.Client, rollout)

		check(t, env.Client.Patch(ctx, rollout.DeepCopy(), patchYAML(t, "spec: {state: Paused, attempt: 2, failureThreshold: 5%, approvedWaves: [wave-0, wave-30, rest]}")), "")
		wantRefused(t, env.Client.Patch(ctx, rollout.DeepCopy(), patchYAML(t, "spec: {hosts: [a]}")), "hosts is immutable")
	})
}

// TestNoCommands: through the API nobody makes a host run a command or reach another
// address. Only a closure, which is signed, can have such checks.
func TestNoCommands(t *testing.T) {
	namespace := env.Namespace(t.Context())
	for _, tc := range []struct{ check, refused string }{
		{"{name: a, type: exec}", `spec.healthChecks[0].type: Unsupported value: "exec": supported values: "systemd", "launchd", "http", "tcp"`},
		{"{name: a, type: tcp, tcp: {port: 22}, exec: {argv: [/bin/sh]}}", `unknown field "spec.healthChecks[0].exec"`},
		{"{name: a, type: http, http: {port: 80, host: 10.0.0.1}}", `unknown field "spec.healthChecks[0].http.host"`},
		{"{name: a, type: http, http: {port: 80, url: 'http://10.0.0.1'}}", `unknown field "spec.healthChecks[0].http.url"`},
		{"{name: a, type: http, http: {port: 80, path: '@10.0.0.1/'}}", "spec.healthChecks[0].http.path in body should match"},
		{"{name: a, type: tcp, tcp: {port: 22, address: 10.0.0.1}}", `unknown field "spec.healthChecks[0].tcp.address"`},
	} {
		host := with(t, small(t, "Host", namespace), "spec: {healthChecks: ["+tc.check+"]}")
		wantRefused(t, env.Client.Create(t.Context(), host, client.DryRunAll, client.FieldValidation("Strict")), tc.refused)
	}
	t.Run("a client that is not strict stores no such field", func(t *testing.T) {
		host := create(t, env.Client, with(t, small(t, "Host", namespace),
			"spec: {healthChecks: [{name: a, type: tcp, tcp: {port: 22, address: 10.0.0.1}, exec: {argv: [/bin/sh]}}]}"))
		want := parse(t, "{list: [{name: a, type: tcp, timeoutSeconds: 60, tcp: {port: 22}}]}").Object["list"]
		wantNested(t, host, want, "spec", "healthChecks")
	})
}
