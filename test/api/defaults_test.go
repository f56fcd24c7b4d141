//go:build integration

// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package api

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// required are the fields without which an object, or the part that they belong to, is
// refused.
var required = map[string][]string{
	"Host": {
		"spec", "spec.platform",
		"spec.desired.assignedTime", "spec.desired.intent", "spec.desired.revision",
		"spec.desired.release.name", "spec.desired.release.uid", "spec.desired.rollout.name", "spec.desired.rollout.uid",
		"spec.healthChecks[].name", "spec.healthChecks[].type",
		"spec.healthChecks[].http.port", "spec.healthChecks[].launchd.labels", "spec.healthChecks[].systemd.units", "spec.healthChecks[].tcp.port",
		"spec.override.id",
		"status.attempt.revision", "status.attempt.storePath", "status.attempt.phases[].phase",
		"status.booted.storePath",
		"status.healthChecks[].name", "status.healthChecks[].state",
		"status.history[].revision", "status.history[].storePath", "status.history[].phases[].phase",
		"status.profile.storePath", "status.running.storePath",
	},
	"Release": {
		"spec", "spec.caches", "spec.hosts", "spec.caches[].url",
		"status.offenders[].reason", "status.offenders[].storePath",
	},
	"Rollout": {
		"spec", "spec.release",
		"spec.selector.matchExpressions[].key", "spec.selector.matchExpressions[].operator",
		"spec.strategy.waves[].name",
		"spec.strategy.waves[].selector.matchExpressions[].key", "spec.strategy.waves[].selector.matchExpressions[].operator",
		"status.failures[].host", "status.failures[].reason", "status.waves[].name",
	},
}

// checkIndex is the element of spec.healthChecks in the full Host that has the settings.
var checkIndex = strings.NewReplacer(
	"healthChecks[].http", "healthChecks[2].http", "healthChecks[].launchd", "healthChecks[1].launchd", "healthChecks[].tcp", "healthChecks[3].tcp",
	"[]", "[0]",
)

func TestRequired(t *testing.T) {
	for kind, fields := range required {
		namespace, of := attempts(t, kind)
		for _, field := range fields {
			t.Run(kind+" "+field, func(t *testing.T) {
				o := full(t, kind, namespace)
				at := checkIndex.Replace(field)
				removeAt(t, o.Object, at)
				wantRefused(t, of(at)(t, o), at+": Required value")
			})
		}
	}
}

// removeAt removes the field at a path.
func removeAt(t testing.TB, content map[string]any, at string) {
	t.Helper()
	parent, field := "", at
	if i := strings.LastIndex(at, "."); i >= 0 {
		parent, field = at[:i], at[i+1:]
	}
	delete(fieldsAt(t, content, parent), field)
}

// defaults are the fields that the API server fills in, as JSON.
var defaults = map[string]map[string]string{
	"Host": {
		"spec.lifecycle":                           `"Active"`,
		"spec.activation":                          `{"mode":"Switch"}`,
		"spec.activation.mode":                     `"Switch"`,
		"spec.activation.reboot":                   `"Never"`,
		"spec.activation.unprotectedBoot":          `"Refuse"`,
		"spec.activation.confirmTimeoutSeconds":    `120`,
		"spec.activation.activationTimeoutSeconds": `600`,
		"spec.activation.drift":                    `"Report"`,
		"spec.activation.failedUnits":              `"RollBack"`,
		"spec.healthChecks[].timeoutSeconds":       `60`,
		"spec.healthChecks[].http.path":            `"/"`,
		"spec.healthChecks[].http.scheme":          `"HTTP"`,
		"spec.healthChecks[].http.expectedStatus":  `200`,
		"status": `{"observedGeneration":-1}`,
	},
	"Release": {
		"spec.verification": `"Required"`,
		"status":            `{"observedGeneration":-1}`,
	},
	"Rollout": {
		"spec.strategy":                  `{"type":"AllAtOnce"}`,
		"spec.strategy.type":             `"AllAtOnce"`,
		"spec.strategy.waves[].approval": `"Automatic"`,
		"spec.failureThreshold":          `0`,
		"spec.onFailure":                 `"Pause"`,
		"spec.hostTimeoutSeconds":        `1800`,
		"spec.offlinePolicy":             `"Defer"`,
		"spec.olderRelease":              `"Block"`,
		"spec.state":                     `"Running"`,
		"spec.attempt":                   `1`,
		"status":                         `{"observedGeneration":-1}`,
	},
}

// TestDefaults creates objects as short as users write them and compares all that is
// stored.
func TestDefaults(t *testing.T) {
	const activation = "{mode: Switch, reboot: Never, unprotectedBoot: Refuse, confirmTimeoutSeconds: 120, activationTimeoutSeconds: 600, drift: Report, failedUnits: RollBack}"
	const rollout = "failureThreshold: 0, onFailure: Pause, hostTimeoutSeconds: 1800, offlinePolicy: Defer, olderRelease: Block, state: Running, attempt: 1"
	tests := []struct{ name, kind, spec, want string }{
		{"the smallest Host", "Host", "{platform: x86_64-linux}", "{platform: x86_64-linux, lifecycle: Active, activation: " + activation + "}"},
		{"an empty activation", "Host", "{platform: x86_64-linux, activation: {}}", "{platform: x86_64-linux, lifecycle: Active, activation: " + activation + "}"},
		{"one field of the activation", "Host", "{platform: x86_64-linux, activation: {reboot: Automatic}}",
			"{platform: x86_64-linux, lifecycle: Active, activation: " + strings.Replace(activation, "Never", "Automatic", 1) + "}"},
		{"health checks", "Host",
			"{platform: x86_64-linux, healthChecks: [{name: a, type: http, http: {port: 80}}, {name: b, type: tcp, tcp: {port: 22}}]}",
			"{platform: x86_64-linux, lifecycle: Active, activation: " + activation + ", healthChecks: [" +
				"{name: a, type: http, timeoutSeconds: 60, http: {port: 80, path: /, scheme: HTTP, expectedStatus: 200}}, {name: b, type: tcp, timeoutSeconds: 60, tcp: {port: 22}}]}"},
		{"the smallest Release", "Release", "{caches: [{url: 'https://a'}], hosts: {a: /nix/store/" + digest + "-a}}",
			"{caches: [{url: 'https://a'}], hosts: {a: /nix/store/" + digest + "-a}, verification: Required}"},
		{"the smallest Rollout", "Rollout", "{release: a, selector: {}}",
			"{release: a, selector: {}, strategy: {type: AllAtOnce}, " + rollout + "}"},
		{"a Rollout with waves", "Rollout", "{release: a, selector: {}, strategy: {type: Staged, waves: [{name: a}]}}",
			"{release: a, selector: {}, strategy: {type: Staged, waves: [{name: a, approval: Automatic}]}, " + rollout + "}"},
	}
	namespace := env.Namespace(t.Context())
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			o := small(t, tc.kind, namespace)
			o.Object["spec"] = parse(t, tc.spec).Object
			if err := env.Client.Create(t.Context(), o, client.DryRunAll); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(parse(t, tc.want).Object, o.Object["spec"]); diff != "" {
				t.Errorf("spec (-want +got):\n%s", diff)
			}
			// GitOps tools must not take an object for done that nobody has looked at.
			if diff := cmp.Diff(parse(t, "{observedGeneration: -1}").Object, o.Object["status"]); diff != "" {
				t.Errorf("status (-want +got):\n%s", diff)
			}
		})
	}
}
