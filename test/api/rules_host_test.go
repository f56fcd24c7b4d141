//go:build integration

// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package api

import (
	"fmt"
	"strings"
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	assignment = "assignedTime: '2026-11-24T00:00:00Z', intent: Deploy, storePath: /nix/store/" + digest + "-a, caches: ['https://a', 'https://b']"

	higherRevision = "desired changes only together with a higher revision"
	neverRemoved   = "desired cannot be removed once it is set; to drop an assignment set spec.override with clear: Desired"
	needsStorePath = "storePath is required unless intent is None"
	eitherOverride = "exactly one of storePath and clear is set"
	lifecycleMoves = "; legal moves: Pending to Provisioning, Active or Decommissioned; Provisioning to Active or Pending; " +
		"Active to Maintenance or Decommissioned; Maintenance to Active or Decommissioned"
)

func hostRules() []rule {
	const assigned = "{desired: {revision: 5, " + assignment + "}}"
	return append(unionRules(), []rule{
		{name: "platform changes", change: "{platform: aarch64-linux}", refused: "platform is immutable: a machine of another platform is another Host"},
		{name: "platform stays", change: "{platform: x86_64-linux, lifecycle: Maintenance}"},
		{name: "a lifecycle that is not legal", spec: "{lifecycle: Maintenance}", change: "{lifecycle: Provisioning}",
			refused: "lifecycle cannot move from Maintenance to Provisioning" + lifecycleMoves},

		{name: "desired is set", spec: assigned},
		{name: "desired stays", spec: assigned, change: assigned},
		{name: "desired changes with a higher revision", spec: assigned, change: "{desired: {revision: 6, intent: Revert}}"},
		{name: "a higher revision alone", spec: assigned, change: "{desired: {revision: 6}}"},
		{name: "desired changes with the same revision", spec: assigned, change: "{desired: {storePath: /nix/store/" + digest + "-b}}", refused: higherRevision},
		{name: "a field of desired is removed with the same revision", spec: assigned, change: "{desired: {storePath: null, intent: None}}", refused: higherRevision},
		{name: "caches change their order with the same revision", spec: assigned, change: "{desired: {caches: ['https://b', 'https://a']}}", refused: higherRevision},
		{name: "a lower revision", spec: assigned, change: "{desired: {revision: 4}}", refused: higherRevision},
		{name: "desired changes with a lower revision", spec: assigned, change: "{desired: {revision: 4, intent: Revert}}", refused: higherRevision},
		{name: "desired is removed", spec: assigned, change: "{desired: null}", refused: neverRemoved},
		{name: "desired without a store path asks nothing", spec: "{desired: {revision: 1, assignedTime: '2026-11-24T00:00:00Z', intent: None}}"},
		{name: "deploy without a store path", spec: "{desired: {revision: 1, assignedTime: '2026-11-24T00:00:00Z', intent: Deploy}}",
			refused: needsStorePath, at: "spec.desired"},
		{name: "revert without a store path", spec: "{desired: {revision: 1, assignedTime: '2026-11-24T00:00:00Z', intent: Revert}}",
			refused: needsStorePath, at: "spec.desired"},

		{name: "override adopts", spec: "{override: {id: a, storePath: /nix/store/" + digest + "-a}}"},
		{name: "override clears", spec: "{override: {id: a, clear: Desired}}"},
		{name: "override does both", spec: "{override: {id: a, clear: Desired, storePath: /nix/store/" + digest + "-a}}", refused: eitherOverride, at: "spec.override"},
		{name: "override does neither", spec: "{override: {id: a}}", refused: eitherOverride, at: "spec.override"},
		{name: "override is changed", spec: "{override: {id: a, clear: Desired}}", change: "{override: {id: b}}"},
		{name: "override is removed", spec: "{override: {id: a, clear: Desired}}", change: "{override: null}"},
	}...)
}

// unionRules are those of health checks: the settings are those of the type.
func unionRules() []rule {
	settings := map[string]string{
		"systemd": "systemd: {units: [a.service]}",
		"launchd": "launchd: {labels: [a]}",
		"http":    "http: {port: 80}",
		"tcp":     "tcp: {port: 22}",
	}
	healthCheck := func(kind string, settings ...string) string {
		return "{healthChecks: [{" + strings.Join(append(settings, "name: a, type: "+kind), ", ") + "}]}"
	}
	var all []rule
	for kind, own := range settings {
		refused := kind + " is set if and only if type is " + kind
		all = append(all,
			rule{name: kind + " alone", spec: healthCheck(kind, own)},
			rule{name: kind + " without settings", spec: healthCheck(kind), refused: refused, at: "spec.healthChecks[0]"})
		for other, foreign := range settings {
			if other == kind {
				continue
			}
			all = append(all, rule{name: kind + " with settings of " + other, spec: healthCheck(kind, own, foreign),
				refused: other + " is set if and only if type is " + other, at: "spec.healthChecks[0]"})
		}
	}
	return all
}

// TestLifecycle tries each move from each lifecycle.
func TestLifecycle(t *testing.T) {
	lifecycles := []string{"Pending", "Provisioning", "Active", "Maintenance", "Decommissioned"}
	legal := map[string]bool{
		"Pending Provisioning": true, "Pending Active": true, "Pending Decommissioned": true,
		"Provisioning Active": true, "Provisioning Pending": true,
		"Active Maintenance": true, "Active Decommissioned": true,
		"Maintenance Active": true, "Maintenance Decommissioned": true,
	}
	namespace := env.Namespace(t.Context())
	for _, from := range lifecycles {
		host := newHost(t, namespace, "{platform: x86_64-linux, lifecycle: "+from+"}")
		for _, to := range lifecycles {
			t.Run(from+" to "+to, func(t *testing.T) {
				refused := ""
				if from != to && !legal[from+" "+to] {
					refused = fmt.Sprintf("spec: Invalid value: lifecycle cannot move from %s to %s%s", from, to, lifecycleMoves)
				}
				check(t, env.Client.Patch(t.Context(), host.DeepCopy(), patchYAML(t, "spec: {lifecycle: "+to+"}"), client.DryRunAll), refused)
			})
		}
	}
	t.Run("a lifecycle that is left out goes back to the default", func(t *testing.T) {
		host := newHost(t, namespace, "{platform: x86_64-linux, lifecycle: Decommissioned}")
		err := env.Client.Patch(t.Context(), host, patchYAML(t, "spec: {lifecycle: null}"), client.DryRunAll)
		wantRefused(t, err, "lifecycle cannot move from Decommissioned to Active")
	})
}

const nameTooLong = "a Host's name has at most 200 characters, because the name of its Lease is made from it"

func TestHostName(t *testing.T) {
	namespace := env.Namespace(t.Context())
	for length, refused := range map[int]string{200: "", 201: "<nil>: Invalid value: " + nameTooLong} {
		host := small(t, "Host", namespace)
		host.SetName(strings.Repeat("a", length))
		check(t, env.Client.Create(t.Context(), host, client.DryRunAll), refused)
	}
}
