// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package bootstrap

import (
	"context"
	"fmt"
	"strings"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/apimachinery/pkg/util/wait"
	admissionapply "k8s.io/client-go/applyconfigurations/admissionregistration/v1"
	metaapply "k8s.io/client-go/applyconfigurations/meta/v1"
	"k8s.io/client-go/kubernetes"
)

const (
	// probeName is that of the policy, the binding and, with a suffix, the
	// ConfigMap of the probe. None of them stays.
	probeName = "nixfleet-bootstrap-probe"

	enforceTimeout  = time.Minute
	enforceInterval = 100 * time.Millisecond
)

// waitEnforced returns when every admission policy that is stored now is also
// enforced. The API server takes new policies up together, about once in a
// second, and says nowhere when it has. So one more policy is stored, after all
// others; once it refuses what it forbids, the others are in effect too.
func waitEnforced(ctx context.Context, client kubernetes.Interface) (err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, enforceTimeout, fmt.Errorf("admission policies are not enforced after %s", enforceTimeout))
	defer cancel()
	// What an earlier process has left must not answer for this one.
	forbidden := probeName + "-" + rand.String(8)
	defer func() {
		if cleanupErr := removeProbe(context.WithoutCancel(ctx), client); err == nil {
			err = cleanupErr
		}
	}()
	if err := applyProbe(ctx, client, forbidden); err != nil {
		return fmt.Errorf("probe the admission policies: %w", err)
	}
	// Enforcement is not an object that could be watched.
	err = wait.PollUntilContextCancel(ctx, enforceInterval, true, func(ctx context.Context) (bool, error) {
		return refused(ctx, client, forbidden)
	})
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("wait for the admission policies: %w", err)
	}
	return nil
}

// applyProbe forbids a ConfigMap of that name in the system's namespace.
func applyProbe(ctx context.Context, client kubernetes.Interface, forbidden string) error {
	options := metav1.ApplyOptions{FieldManager: fieldManager, Force: true}
	rule := admissionapply.NamedRuleWithOperations().
		WithOperations(admissionv1.Create).WithAPIGroups("").WithAPIVersions("v1").WithResources("configmaps")
	policy := admissionapply.ValidatingAdmissionPolicy(probeName).WithSpec(
		admissionapply.ValidatingAdmissionPolicySpec().
			WithFailurePolicy(admissionv1.Fail).
			WithMatchConstraints(admissionapply.MatchResources().WithResourceRules(rule)).
			WithValidations(admissionapply.Validation().
				WithExpression(fmt.Sprintf("object.metadata.name != '%s'", forbidden)).
				WithMessage(forbidden)))
	if _, err := client.AdmissionregistrationV1().ValidatingAdmissionPolicies().Apply(ctx, policy, options); err != nil {
		return err
	}
	binding := admissionapply.ValidatingAdmissionPolicyBinding(probeName).WithSpec(
		admissionapply.ValidatingAdmissionPolicyBindingSpec().
			WithPolicyName(probeName).
			WithValidationActions(admissionv1.Deny).
			WithMatchResources(admissionapply.MatchResources().WithNamespaceSelector(
				metaapply.LabelSelector().WithMatchLabels(map[string]string{corev1.LabelMetadataName: SystemNamespace}))))
	_, err := client.AdmissionregistrationV1().ValidatingAdmissionPolicyBindings().Apply(ctx, binding, options)
	return err
}

// refused asks for the forbidden ConfigMap, without ever storing it.
func refused(ctx context.Context, client kubernetes.Interface, forbidden string) (bool, error) {
	object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: forbidden}}
	_, err := client.CoreV1().ConfigMaps(SystemNamespace).Create(ctx, object, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	if apierrors.IsInvalid(err) && strings.Contains(err.Error(), forbidden) {
		return true, nil
	}
	return false, err
}

func removeProbe(ctx context.Context, client kubernetes.Interface) error {
	policies := client.AdmissionregistrationV1()
	for _, remove := range []func(context.Context, string, metav1.DeleteOptions) error{
		policies.ValidatingAdmissionPolicyBindings().Delete,
		policies.ValidatingAdmissionPolicies().Delete,
	} {
		if err := remove(ctx, probeName, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("remove the probe of the admission policies: %w", err)
		}
	}
	return nil
}
