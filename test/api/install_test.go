//go:build integration

// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package api

import (
	"fmt"
	"slices"
	"testing"

	"github.com/spf13/pflag"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"

	"github.com/nixfleet/nixfleet/internal/manager"
	"github.com/nixfleet/nixfleet/internal/testenv"
)

// rendered is what kubectl kustomize config/default prints.
func rendered(t *testing.T) []*object {
	t.Helper()
	resources, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), "../../config/default")
	if err != nil {
		t.Fatal(err)
	}
	var objects []*object
	for _, resource := range resources.Resources() {
		content, err := resource.Map()
		if err != nil {
			t.Fatal(err)
		}
		objects = append(objects, newObject(t, content))
	}
	return objects
}

// TestInstall applies config/default as its users do.
func TestInstall(t *testing.T) {
	objects := rendered(t)
	kinds := make([]string, 0, len(objects))
	for _, o := range objects {
		kinds = append(kinds, o.GetKind())
		if err := env.Client.Patch(t.Context(), o, applyPatch(t, o), client.FieldOwner(kubectlOwner), client.ForceOwnership, strictly{}); err != nil {
			t.Fatalf("apply %s %s: %v", o.GetKind(), o.GetName(), err)
		}
	}
	order := []string{"Namespace", "CustomResourceDefinition", "ValidatingAdmissionPolicyBinding", "ClusterRoleBinding", "Deployment"}
	last := -1
	for _, kind := range order {
		first := slices.Index(kinds, kind)
		if first <= last {
			t.Errorf("%s is not in the order %v: %v", kind, order, kinds)
		}
		last = first
	}

	deployment := &appsv1.Deployment{}
	if err := env.Client.Get(t.Context(), client.ObjectKey{Namespace: testenv.SystemNamespace, Name: "nixfleet-manager"}, deployment); err != nil {
		t.Fatal(err)
	}
	t.Run("the namespace takes the pods", func(t *testing.T) { testPod(t, deployment) })
	t.Run("the manager takes the arguments", func(t *testing.T) { testArguments(t, deployment) })
	t.Run("the service leads to the gateway", func(t *testing.T) { testService(t, deployment) })
	t.Run("the pods run as the manager", func(t *testing.T) {
		account := &corev1.ServiceAccount{}
		key := client.ObjectKey{Namespace: deployment.Namespace, Name: deployment.Spec.Template.Spec.ServiceAccountName}
		if err := env.Client.Get(t.Context(), key, account); err != nil || key.Name != "nixfleet-manager" {
			t.Errorf("service account %s: %v", key, err)
		}
	})
}

// strictly refuses unknown fields, as kubectl does.
type strictly struct{}

func (strictly) ApplyToPatch(o *client.PatchOptions) {
	o.Raw = &metav1.PatchOptions{FieldValidation: metav1.FieldValidationStrict}
}

// testPod asks the API server, which enforces the restricted Pod Security Standard in
// the namespace.
func testPod(t *testing.T, deployment *appsv1.Deployment) {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: deployment.Namespace, GenerateName: "manager-", Labels: deployment.Spec.Template.Labels},
		Spec:       *deployment.Spec.Template.Spec.DeepCopy(),
	}
	check(t, env.Client.Create(t.Context(), pod.DeepCopy(), client.DryRunAll), "")
	pod.Spec.Containers[0].SecurityContext.AllowPrivilegeEscalation = new(true)
	wantRefused(t, env.Client.Create(t.Context(), pod, client.DryRunAll), `violates PodSecurity "restricted`)
}

func testArguments(t *testing.T, deployment *appsv1.Deployment) {
	container := deployment.Spec.Template.Spec.Containers[0]
	options := manager.NewOptions()
	flags := pflag.NewFlagSet("manager", pflag.ContinueOnError)
	options.AddFlags(flags)
	if err := flags.Parse(container.Args); err != nil {
		t.Fatal(err)
	}
	ports := map[string]string{}
	for _, port := range container.Ports {
		ports[port.Name] = fmt.Sprintf(":%d", port.ContainerPort)
	}
	for name, address := range map[string]string{
		"gateway": options.GatewayBindAddress, "metrics": options.MetricsBindAddress, "probes": options.HealthProbeBindAddress,
	} {
		if ports[name] != address {
			t.Errorf("port %s is %s, and the manager listens on %s", name, ports[name], address)
		}
	}
	if mount := container.VolumeMounts[0]; mount.MountPath != options.GatewayCertDir {
		t.Errorf("the Secret is at %s, and the manager reads %s", mount.MountPath, options.GatewayCertDir)
	}
	if !options.LeaderElect || options.LeaderElectionNamespace != deployment.Namespace {
		t.Errorf("leader election is %t, in %s; the manager's rights are in %s", options.LeaderElect, options.LeaderElectionNamespace, deployment.Namespace)
	}
}

func testService(t *testing.T, deployment *appsv1.Deployment) {
	service := &corev1.Service{}
	if err := env.Client.Get(t.Context(), client.ObjectKey{Namespace: deployment.Namespace, Name: "nixfleet-gateway"}, service); err != nil {
		t.Fatal(err)
	}
	for key, value := range service.Spec.Selector {
		if got := deployment.Spec.Template.Labels[key]; got != value {
			t.Errorf("the service selects %s=%s, the pods have %q", key, value, got)
		}
	}
	names := []string{}
	for _, port := range deployment.Spec.Template.Spec.Containers[0].Ports {
		names = append(names, port.Name)
	}
	if target := service.Spec.Ports[0].TargetPort.StrVal; !slices.Contains(names, target) {
		t.Errorf("the service leads to port %s, the pods have %v", target, names)
	}
}
