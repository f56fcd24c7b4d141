// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

//go:build integration

package main

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

var rollouts = schema.GroupVersionResource{Group: "nixfleet.io", Version: "v1alpha1", Resource: "rollouts"}

// testManager sees that each of the manager's parts works in this process: a Host gets
// its Lease, and a Rollout without a release says what it waits for.
func (p *process) testManager(t *testing.T) {
	g := NewWithT(t)
	ctx := t.Context()
	namespace := p.namespace(t)
	p.host(t, namespace, "web-01")
	g.Eventually(func() error {
		_, err := p.client.CoordinationV1().Leases(namespace).Get(ctx, "nixfleet-host-web-01", metav1.GetOptions{})
		return err
	}).WithTimeout(30 * time.Second).Should(Succeed())

	rollout := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "nixfleet.io/v1alpha1",
		"kind":       "Rollout",
		"metadata":   map[string]any{"name": "early"},
		"spec":       map[string]any{"release": "not-yet", "selector": map[string]any{}},
	}}
	_, err := p.dynamic.Resource(rollouts).Namespace(namespace).Create(ctx, rollout, metav1.CreateOptions{})
	g.Expect(err).NotTo(HaveOccurred())
	g.Eventually(func() (string, error) {
		stored, err := p.dynamic.Resource(rollouts).Namespace(namespace).Get(ctx, "early", metav1.GetOptions{})
		if err != nil {
			return "", err
		}
		message, _, err := unstructured.NestedString(stored.Object, "status", "message")
		return message, err
	}).WithTimeout(30 * time.Second).Should(ContainSubstring("there is no release not-yet"))
}
