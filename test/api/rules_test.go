//go:build integration

// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package api

import (
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/client"
)

// rule is a case of a rule that looks at more than one field, or at what was before.
type rule struct {
	name string
	// spec is merged into the spec of the smallest object of the kind and created.
	spec string
	// change is merged into the spec afterwards, by the user, or by the manager if it is
	// about spec.desired. Without it the case is about the creation.
	change string
	// refused is what the user reads after the path; empty if it is accepted.
	refused string
	// at is the path that the message names. Default: spec.
	at string
}

// smallest is the least that a kind needs.
var smallest = map[string]string{
	"Host":    "{platform: x86_64-linux}",
	"Release": "{caches: [{url: 'https://cache.example.org'}], hosts: {web-01: /nix/store/" + digest + "-a}}",
	"Rollout": "{release: a, selector: {}}",
}

// rules are the cases of all kinds.
func rules() map[string][]rule {
	return map[string][]rule{"Host": hostRules(), "Release": releaseRules(), "Rollout": rolloutRules()}
}

func small(t testing.TB, kind, namespace string) *object {
	t.Helper()
	o := parse(t, "{apiVersion: nixfleet.io/v1alpha1, kind: "+kind+", metadata: {generateName: rule-}, spec: "+smallest[kind]+"}")
	o.SetNamespace(namespace)
	return o
}

func TestRules(t *testing.T) {
	asManager := managerClient(t)
	for kind, cases := range rules() {
		namespace := env.Namespace(t.Context())
		for _, r := range cases {
			t.Run(kind+"/"+r.name, func(t *testing.T) {
				o := small(t, kind, namespace)
				if r.spec != "" {
					o = with(t, o, "spec: "+r.spec)
				}
				at := r.at
				if at == "" {
					at = "spec"
				}
				if r.refused != "" {
					r.refused = at + ": Invalid value: " + r.refused
				}
				desired, _ := o.Object["spec"].(map[string]any)["desired"].(map[string]any)
				delete(o.Object["spec"].(map[string]any), "desired")
				if r.change == "" && desired == nil {
					check(t, env.Client.Create(t.Context(), o, client.DryRunAll), r.refused)
					return
				}
				o = create(t, env.Client, o)
				patches := []client.Patch{}
				if desired != nil {
					patches = append(patches, mergePatch(t, map[string]any{"spec": map[string]any{"desired": desired}}))
				}
				if r.change != "" {
					patches = append(patches, patchYAML(t, "spec: "+r.change))
				}
				for _, patch := range patches[:len(patches)-1] {
					if err := asManager.Patch(t.Context(), o, patch); err != nil {
						t.Fatal(err)
					}
				}
				c := env.Client
				if desired != nil {
					c = asManager
				}
				check(t, c.Patch(t.Context(), o, patches[len(patches)-1], client.DryRunAll), r.refused)
			})
		}
	}
}
