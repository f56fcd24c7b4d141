//go:build integration

// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package api

import (
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/apiserver/pkg/cel/openapi/resolver"
	"k8s.io/client-go/discovery"
)

// TestPoliciesTypeCheck runs the check whose warnings a cluster shows in the status of
// a policy: a name that is misspelled is found here and not at the first request.
func TestPoliciesTypeCheck(t *testing.T) {
	client, err := discovery.NewDiscoveryClientForConfig(env.Config)
	if err != nil {
		t.Fatal(err)
	}
	checker := &validating.TypeChecker{SchemaResolver: &resolver.ClientDiscoveryResolver{Discovery: client}, RestMapper: env.Client.RESTMapper()}
	policies := &admissionv1.ValidatingAdmissionPolicyList{}
	if err := env.Client.List(t.Context(), policies); err != nil {
		t.Fatal(err)
	}
	bindings := &admissionv1.ValidatingAdmissionPolicyBindingList{}
	if err := env.Client.List(t.Context(), bindings); err != nil {
		t.Fatal(err)
	}
	enforced := map[string]bool{}
	for _, binding := range bindings.Items {
		enforced[binding.Spec.PolicyName] = len(binding.Spec.ValidationActions) == 1 && binding.Spec.ValidationActions[0] == admissionv1.Deny &&
			binding.Spec.MatchResources == nil
	}
	if want := 5; len(policies.Items) != want {
		t.Errorf("%d policies, want %d", len(policies.Items), want)
	}
	for _, policy := range policies.Items {
		t.Run(policy.Name, func(t *testing.T) {
			for _, warning := range checker.Check(&policy) {
				t.Errorf("%s: %s", warning.FieldRef, warning.Warning)
			}
			if policy.Spec.FailurePolicy == nil || *policy.Spec.FailurePolicy != admissionv1.Fail {
				t.Error("a policy that cannot be evaluated lets the request pass")
			}
			if !enforced[policy.Name] {
				t.Error("no binding enforces the policy everywhere")
			}
		})
	}
}
