// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package testenv

import (
	"context"
	"fmt"
	"strings"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	probe         = "nixfleet-testenv-probe"
	probeInterval = 50 * time.Millisecond
)

// waitEnforced returns when the policies that are stored now are enforced. The API
// server takes up new ones all together, about once in a second, and says nowhere when
// it has. So one more is stored after them, and asked until it refuses: then the
// others are in effect too.
func (e *Env) waitEnforced(ctx context.Context) error {
	policy, binding := probePolicy()
	for _, object := range []client.Object{policy, binding} {
		if err := e.Client.Create(ctx, object); err != nil {
			return fmt.Errorf("probe the admission policies: %w", err)
		}
	}
	if err := wait.PollUntilContextCancel(ctx, probeInterval, true, e.probeRefused); err != nil {
		return fmt.Errorf("wait until the admission policies are enforced: %w", err)
	}
	for _, object := range []client.Object{binding, policy} {
		if err := e.Client.Delete(ctx, object); err != nil {
			return fmt.Errorf("remove the probe of the admission policies: %w", err)
		}
	}
	return nil
}

// probePolicy forbids one ConfigMap.
func probePolicy() (*admissionv1.ValidatingAdmissionPolicy, *admissionv1.ValidatingAdmissionPolicyBinding) {
	meta := metav1.ObjectMeta{Name: probe}
	policy := &admissionv1.ValidatingAdmissionPolicy{ObjectMeta: meta, Spec: admissionv1.ValidatingAdmissionPolicySpec{
		MatchConstraints: &admissionv1.MatchResources{ResourceRules: []admissionv1.NamedRuleWithOperations{{
			RuleWithOperations: admissionv1.RuleWithOperations{
				Operations: []admissionv1.OperationType{admissionv1.Create},
				Rule:       admissionv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"configmaps"}},
			},
		}}},
		Validations: []admissionv1.Validation{{Expression: "object.metadata.name != '" + probe + "'", Message: probe}},
	}}
	binding := &admissionv1.ValidatingAdmissionPolicyBinding{ObjectMeta: meta, Spec: admissionv1.ValidatingAdmissionPolicyBindingSpec{
		PolicyName: probe, ValidationActions: []admissionv1.ValidationAction{admissionv1.Deny},
	}}
	return policy, binding
}

// probeRefused asks for the forbidden ConfigMap without ever storing it.
func (e *Env) probeRefused(ctx context.Context) (bool, error) {
	object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceDefault, Name: probe}}
	err := e.Client.Create(ctx, object, client.DryRunAll)
	if apierrors.IsInvalid(err) && strings.Contains(err.Error(), probe) {
		return true, nil
	}
	return false, err
}
