//go:build integration

// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package main

import (
	"context"
	"crypto/tls"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"github.com/nixfleet/nixfleet/cmd/control-plane/internal/pki"
	"github.com/nixfleet/nixfleet/config"
)

// eventually is for what the API server and its controllers do on their own.
const eventually = 30 * time.Second

var (
	hosts = schema.GroupVersionResource{Group: "nixfleet.io", Version: "v1alpha1", Resource: "hosts"}
	crds  = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}
)

func itoa(n int) string { return strconv.Itoa(n) }

// TestControlPlane tests one process; its subtests stand for themselves and
// use a namespace each.
func TestControlPlane(t *testing.T) {
	p := start(t, filepath.Join(t.TempDir(), "data"))

	t.Run("private files", p.testPrivateFiles)
	t.Run("manifests are applied", p.testManifests)
	t.Run("TLS 1.3 only", p.testTLS)
	t.Run("anonymous requests", p.testAnonymous)
	t.Run("manager's identity", p.testManagerIdentity)
	t.Run("service accounts", p.testServiceAccounts)
	t.Run("admission policies", p.testAdmissionPolicy)
	t.Run("namespace deletion", p.testNamespaceDeletion)
	t.Run("garbage collection", p.testGarbageCollection)
	t.Run("manager", p.testManager)
	t.Run("second process", p.testSecondProcess)
	t.Run("no errors in the log", p.testLog)
}

func (p *process) namespace(t *testing.T) string {
	t.Helper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "test-"}}
	created, err := p.client.CoreV1().Namespaces().Create(t.Context(), namespace, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return created.Name
}

func (p *process) configMap(t *testing.T, namespace, name string, owners ...metav1.OwnerReference) *corev1.ConfigMap {
	t.Helper()
	object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, OwnerReferences: owners}}
	created, err := p.client.CoreV1().ConfigMaps(namespace).Create(t.Context(), object, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return created
}

func (p *process) host(t *testing.T, namespace, name string) *unstructured.Unstructured {
	t.Helper()
	host := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "nixfleet.io/v1alpha1",
		"kind":       "Host",
		"metadata":   map[string]any{"name": name},
		"spec":       map[string]any{"platform": "x86_64-linux"},
	}}
	created, err := p.dynamic.Resource(hosts).Namespace(namespace).Create(t.Context(), host, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return created
}

func (p *process) testPrivateFiles(t *testing.T) {
	g := NewWithT(t)
	mode := func(path string) fs.FileMode {
		info, err := os.Stat(filepath.Join(p.dir, path))
		g.Expect(err).NotTo(HaveOccurred())
		return info.Mode().Perm()
	}
	g.Expect(mode("admin.kubeconfig")).To(Equal(fs.FileMode(0o600)))
	g.Expect(mode("pki/ca.key")).To(Equal(fs.FileMode(0o600)))
	for _, dir := range []string{".", "pki", "etcd"} {
		g.Expect(mode(dir)).To(Equal(fs.FileMode(0o700)), dir)
	}
	// The way to etcd is inside the private directory, and nowhere else.
	g.Expect(filepath.Join(p.dir, "etcd", "client.sock")).To(BeAnExistingFile())
}

func (p *process) testManifests(t *testing.T) {
	g := NewWithT(t)
	ctx := t.Context()
	for _, name := range []string{"default", "nixfleet-system"} {
		_, err := p.client.CoreV1().Namespaces().Get(ctx, name, metav1.GetOptions{})
		g.Expect(err).NotTo(HaveOccurred())
	}
	for _, name := range []string{"hosts", "releases", "rollouts"} {
		crd, err := p.dynamic.Resource(crds).Get(ctx, name+".nixfleet.io", metav1.GetOptions{})
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(conditionStatus(crd, "Established")).To(Equal("True"), name)
	}
	policies := manifestNames(t, "policy/*.yaml", "ValidatingAdmissionPolicy")
	g.Expect(policies).NotTo(BeEmpty())
	for _, name := range policies {
		_, err := p.client.AdmissionregistrationV1().ValidatingAdmissionPolicies().Get(ctx, name, metav1.GetOptions{})
		g.Expect(err).NotTo(HaveOccurred())
	}
	roles := manifestNames(t, "rbac/*.yaml", "ClusterRole")
	g.Expect(roles).NotTo(BeEmpty())
	for _, name := range roles {
		_, err := p.client.RbacV1().ClusterRoles().Get(ctx, name, metav1.GetOptions{})
		g.Expect(err).NotTo(HaveOccurred())
	}
}

// manifestNames reads the manifests without the code under test.
func manifestNames(t *testing.T, pattern, kind string) []string {
	t.Helper()
	files, err := fs.Glob(config.FS, pattern)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, file := range files {
		data, err := fs.ReadFile(config.FS, file)
		if err != nil {
			t.Fatal(err)
		}
		for document := range strings.SplitSeq(string(data), "\n---") {
			object := &metav1.PartialObjectMetadata{}
			if err := yaml.Unmarshal([]byte(document), object); err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			if object.Kind == kind {
				names = append(names, object.Name)
			}
		}
	}
	return names
}

func conditionStatus(object *unstructured.Unstructured, conditionType string) string {
	conditions, _, _ := unstructured.NestedSlice(object.Object, "status", "conditions")
	for _, c := range conditions {
		if condition, ok := c.(map[string]any); ok && condition["type"] == conditionType {
			status, _ := condition["status"].(string)
			return status
		}
	}
	return ""
}

func (p *process) testTLS(t *testing.T) {
	g := NewWithT(t)
	server, err := url.Parse(p.config.Host)
	g.Expect(err).NotTo(HaveOccurred())
	dial := func(version uint16) error {
		// What is tested is which version the server agrees to.
		connection, err := tls.Dial("tcp", server.Host, &tls.Config{InsecureSkipVerify: true, MinVersion: version, MaxVersion: version})
		if err == nil {
			err = connection.Close()
		}
		return err
	}
	g.Expect(dial(tls.VersionTLS13)).To(Succeed())
	g.Expect(dial(tls.VersionTLS12)).To(MatchError(ContainSubstring("protocol version")))
}

func (p *process) testAnonymous(t *testing.T) {
	g := NewWithT(t)
	anonymous := clientFor(t, rest.AnonymousClientConfig(p.config))
	_, err := anonymous.CoreV1().Namespaces().List(t.Context(), metav1.ListOptions{})
	g.Expect(apierrors.IsForbidden(err)).To(BeTrue(), "got %v", err)
}

// withCertificate is a configuration for another user.
func (p *process) withCertificate(name string) *rest.Config {
	other := rest.AnonymousClientConfig(p.config)
	other.CertFile = filepath.Join(p.dir, "pki", name+".crt")
	other.KeyFile = filepath.Join(p.dir, "pki", name+".key")
	return other
}

func (p *process) testManagerIdentity(t *testing.T) {
	g := NewWithT(t)
	manager := clientFor(t, p.withCertificate("manager"))
	self, err := manager.AuthenticationV1().SelfSubjectReviews().Create(t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(self.Status.UserInfo.Username).To(Equal(pki.ManagerUser))

	g.Expect(allowed(t, manager, "watch", "nixfleet.io", "hosts")).To(BeTrue(), "the manager may watch hosts")
	g.Expect(allowed(t, manager, "*", "*", "*")).To(BeFalse(), "the manager may not do everything")
	g.Expect(allowed(t, manager, "create", "rbac.authorization.k8s.io", "clusterrolebindings")).To(BeFalse(), "the manager may not grant itself rights")
}

func allowed(t *testing.T, client kubernetes.Interface, verb, group, resource string) bool {
	t.Helper()
	review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
		ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: verb, Group: group, Resource: resource, Namespace: metav1.NamespaceAll},
	}}
	answer, err := client.AuthorizationV1().SelfSubjectAccessReviews().Create(t.Context(), review, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return answer.Status.Allowed
}

func (p *process) testServiceAccounts(t *testing.T) {
	g := NewWithT(t)
	ctx := t.Context()
	namespace := p.namespace(t)
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "reader"}}
	_, err := p.client.CoreV1().ServiceAccounts(namespace).Create(ctx, account, metav1.CreateOptions{})
	g.Expect(err).NotTo(HaveOccurred())

	impersonated := rest.CopyConfig(p.config)
	impersonated.Impersonate = rest.ImpersonationConfig{UserName: "system:serviceaccount:" + namespace + ":reader"}
	asReader := clientFor(t, impersonated)
	token, err := p.client.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, "reader", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	g.Expect(err).NotTo(HaveOccurred())
	withToken := rest.AnonymousClientConfig(p.config)
	withToken.BearerToken = token.Status.Token
	tokenHolder := clientFor(t, withToken)

	list := func(client kubernetes.Interface) error {
		_, err := client.CoreV1().ConfigMaps(namespace).List(ctx, metav1.ListOptions{})
		return err
	}
	for name, client := range map[string]kubernetes.Interface{"impersonated": asReader, "with a token": tokenHolder} {
		g.Expect(apierrors.IsForbidden(list(client))).To(BeTrue(), "%s without a role", name)
	}
	p.allowConfigMaps(t, namespace, "reader")
	for name, client := range map[string]kubernetes.Interface{"impersonated": asReader, "with a token": tokenHolder} {
		g.Eventually(list).WithArguments(client).WithTimeout(eventually).Should(Succeed(), "%s with a role", name)
	}
	// The manager's certificate must not be a way to become an administrator.
	config := p.withCertificate("manager")
	config.Impersonate = rest.ImpersonationConfig{UserName: "root", Groups: []string{"system:masters"}}
	g.Expect(apierrors.IsForbidden(list(clientFor(t, config)))).To(BeTrue(), "the manager as an administrator")
}

func (p *process) allowConfigMaps(t *testing.T, namespace, account string) {
	t.Helper()
	g := NewWithT(t)
	role := &rbacv1.Role{
		ObjectMeta: metav1.ObjectMeta{Name: account},
		Rules:      []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"list"}}},
	}
	_, err := p.client.RbacV1().Roles(namespace).Create(t.Context(), role, metav1.CreateOptions{})
	g.Expect(err).NotTo(HaveOccurred())
	binding := &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: account},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: account},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: account}},
	}
	_, err = p.client.RbacV1().RoleBindings(namespace).Create(t.Context(), binding, metav1.CreateOptions{})
	g.Expect(err).NotTo(HaveOccurred())
}

func (p *process) testAdmissionPolicy(t *testing.T) {
	g := NewWithT(t)
	ctx := t.Context()
	namespace := p.namespace(t)
	p.forbidConfigMap(t, namespace, "forbidden")

	create := func(name string) error {
		object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}}
		_, err := p.client.CoreV1().ConfigMaps(namespace).Create(ctx, object, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err
	}
	g.Eventually(create).WithArguments("forbidden").WithTimeout(eventually).Should(MatchError(ContainSubstring("that name is forbidden")))
	g.Expect(create("other")).To(Succeed())

	// One of our own: even an administrator does not write what the rollout
	// controller assigns.
	p.host(t, namespace, "web-01")
	patch := []byte(`{"spec":{"desired":{"revision":1,"intent":"None","assignedTime":"2026-01-01T00:00:00Z"}}}`)
	_, err := p.dynamic.Resource(hosts).Namespace(namespace).Patch(ctx, "web-01", "application/merge-patch+json", patch, metav1.PatchOptions{})
	g.Expect(err).To(MatchError(ContainSubstring("ValidatingAdmissionPolicy")))
}

func (p *process) forbidConfigMap(t *testing.T, namespace, name string) {
	t.Helper()
	g := NewWithT(t)
	policy := &admissionv1.ValidatingAdmissionPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: namespace},
		Spec: admissionv1.ValidatingAdmissionPolicySpec{
			MatchConstraints: &admissionv1.MatchResources{ResourceRules: []admissionv1.NamedRuleWithOperations{{
				RuleWithOperations: admissionv1.RuleWithOperations{
					Operations: []admissionv1.OperationType{admissionv1.Create},
					Rule:       admissionv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"configmaps"}},
				},
			}}},
			Validations: []admissionv1.Validation{{Expression: "object.metadata.name != '" + name + "'", Message: "that name is forbidden"}},
		},
	}
	policies := p.client.AdmissionregistrationV1()
	_, err := policies.ValidatingAdmissionPolicies().Create(t.Context(), policy, metav1.CreateOptions{})
	g.Expect(err).NotTo(HaveOccurred())
	binding := &admissionv1.ValidatingAdmissionPolicyBinding{
		ObjectMeta: metav1.ObjectMeta{Name: namespace},
		Spec: admissionv1.ValidatingAdmissionPolicyBindingSpec{
			PolicyName:        namespace,
			ValidationActions: []admissionv1.ValidationAction{admissionv1.Deny},
			MatchResources: &admissionv1.MatchResources{NamespaceSelector: &metav1.LabelSelector{
				MatchLabels: map[string]string{corev1.LabelMetadataName: namespace},
			}},
		},
	}
	_, err = policies.ValidatingAdmissionPolicyBindings().Create(t.Context(), binding, metav1.CreateOptions{})
	g.Expect(err).NotTo(HaveOccurred())
}

func (p *process) testNamespaceDeletion(t *testing.T) {
	g := NewWithT(t)
	ctx := t.Context()
	namespace := p.namespace(t)
	p.configMap(t, namespace, "one")
	p.host(t, namespace, "web-01")

	g.Expect(p.client.CoreV1().Namespaces().Delete(ctx, namespace, metav1.DeleteOptions{})).To(Succeed())

	g.Eventually(func() bool {
		_, err := p.client.CoreV1().Namespaces().Get(ctx, namespace, metav1.GetOptions{})
		return apierrors.IsNotFound(err)
	}).WithTimeout(eventually).Should(BeTrue())
}

func (p *process) testGarbageCollection(t *testing.T) {
	g := NewWithT(t)
	ctx := t.Context()
	namespace := p.namespace(t)
	host := p.host(t, namespace, "web-01")
	owner := metav1.OwnerReference{APIVersion: host.GetAPIVersion(), Kind: host.GetKind(), Name: host.GetName(), UID: host.GetUID()}
	owned := p.configMap(t, namespace, "owned", owner)
	p.configMap(t, namespace, "owned-by-owned", metav1.OwnerReference{APIVersion: "v1", Kind: "ConfigMap", Name: owned.Name, UID: owned.UID})
	p.configMap(t, namespace, "free")

	g.Expect(p.dynamic.Resource(hosts).Namespace(namespace).Delete(ctx, "web-01", metav1.DeleteOptions{})).To(Succeed())

	names := func() ([]string, error) {
		list, err := p.client.CoreV1().ConfigMaps(namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return nil, err
		}
		var names []string
		for _, object := range list.Items {
			names = append(names, object.Name)
		}
		return names, nil
	}
	g.Eventually(names).WithTimeout(eventually).Should(ConsistOf("free"))
}

func (p *process) testSecondProcess(t *testing.T) {
	g := NewWithT(t)
	second := launch(t, p.dir)
	second.waitExit(t, stopTimeout)

	g.Expect(second.cmd.ProcessState.ExitCode()).To(Equal(1))
	g.Expect(second.log.String()).To(And(ContainSubstring(p.dir), ContainSubstring(itoa(p.cmd.Process.Pid)), ContainSubstring("--data-dir")))
	_, err := p.client.CoreV1().Namespaces().Get(t.Context(), "default", metav1.GetOptions{})
	g.Expect(err).NotTo(HaveOccurred(), "the first one goes on")
}

// testLog finds what works but complains all the time, such as a controller
// that lacks a right.
func (p *process) testLog(t *testing.T) {
	for line := range strings.Lines(p.log.String()) {
		if strings.Contains(line, "forbidden:") && strings.Contains(line, "system:serviceaccount:") {
			t.Errorf("in the log: %s", line)
		}
	}
}

// TestSIGKILL takes the process away in the middle of its work.
func TestSIGKILL(t *testing.T) {
	g := NewWithT(t)
	ctx := t.Context()
	p := start(t, filepath.Join(t.TempDir(), "data"))
	namespace := p.namespace(t)
	before := p.host(t, namespace, "web-01")
	authority, err := os.ReadFile(filepath.Join(p.dir, "pki", "gateway-ca.crt"))
	g.Expect(err).NotTo(HaveOccurred())

	p.kill(t)
	p = start(t, p.dir)

	after, err := p.dynamic.Resource(hosts).Namespace(namespace).Get(ctx, "web-01", metav1.GetOptions{})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(after.GetUID()).To(Equal(before.GetUID()))
	g.Expect(os.ReadFile(filepath.Join(p.dir, "pki", "gateway-ca.crt"))).To(Equal(authority))

	// The controllers work on what the earlier process left.
	g.Expect(p.client.CoreV1().Namespaces().Delete(ctx, namespace, metav1.DeleteOptions{})).To(Succeed())
	g.Eventually(func() bool {
		_, err := p.client.CoreV1().Namespaces().Get(ctx, namespace, metav1.GetOptions{})
		return apierrors.IsNotFound(err)
	}).WithTimeout(eventually).Should(BeTrue())
}

// TestStop asks for an end while a client watches: its stream has to be closed,
// not waited for.
func TestStop(t *testing.T) {
	g := NewWithT(t)
	p := start(t, filepath.Join(t.TempDir(), "data"))
	// A context that ends after the test: the watch must end by the server.
	watch, err := p.client.CoreV1().ConfigMaps("").Watch(context.WithoutCancel(t.Context()), metav1.ListOptions{})
	g.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(watch.Stop)

	g.Expect(p.stop(t)).To(BeZero())

	g.Eventually(watch.ResultChan()).WithTimeout(eventually).Should(BeClosed())
	g.Expect(p.log.String()).To(ContainSubstring("The control plane has stopped"))

	again := start(t, p.dir)
	g.Expect(again.stop(t)).To(BeZero())
}

// TestStopWhileStarting is someone who changes their mind.
func TestStopWhileStarting(t *testing.T) {
	g := NewWithT(t)
	p := launch(t, filepath.Join(t.TempDir(), "data"))
	g.Eventually(p.log.String).WithTimeout(startTimeout).Should(ContainSubstring("Issued a certificate"))

	g.Expect(p.stop(t)).To(BeZero())

	g.Expect(p.log.String()).NotTo(ContainSubstring("The control plane is ready"))
}
