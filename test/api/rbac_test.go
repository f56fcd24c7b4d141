//go:build integration

// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package api

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/testenv"
)

// TestRights compares all rights of an account in a namespace, not a choice of them:
// what is not listed here is refused.
func TestRights(t *testing.T) {
	// Every account has these rights, as Kubernetes comes.
	everyone := rightsOf(t, env.As("system:serviceaccount:nixfleet-system:other"), testenv.SystemNamespace)
	managerEverywhere := []string{
		"create subjectaccessreviews.authorization.k8s.io", "create tokenreviews.authentication.k8s.io",
		"create,delete,get,list,patch,watch leases.coordination.k8s.io",
		"create,patch events.events.k8s.io",
		"get,list,patch,watch hosts.nixfleet.io",
		"get,list,patch,watch releases.nixfleet.io",
		"get,list,patch,watch rollouts.nixfleet.io",
		"impersonate userextras/nixfleet.io/host.authentication.k8s.io",
		"patch hosts/status.nixfleet.io",
		"patch releases/status.nixfleet.io",
		"patch rollouts/status.nixfleet.io",
		"update hosts/finalizers.nixfleet.io",
	}
	namespace := env.Namespace(t.Context())
	for _, tc := range []struct {
		name, namespace string
		config          *rest.Config
		want            []string
	}{
		{"the manager in a namespace of hosts", namespace, env.ManagerConfig(), managerEverywhere},
		{"the manager in its own namespace", testenv.SystemNamespace, env.ManagerConfig(), append([]string{
			"create,get,update leases.coordination.k8s.io",
			"create,patch events.",
			"impersonate serviceaccounts.[nixfleet-agent]",
		}, managerEverywhere...)},
		{"the account of agents", namespace, env.As(testenv.AgentUser), []string{
			"create events.events.k8s.io",
			"patch hosts/status.nixfleet.io",
			"patch leases.coordination.k8s.io",
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			own := slices.DeleteFunc(rightsOf(t, tc.config, tc.namespace), func(right string) bool { return slices.Contains(everyone, right) })
			slices.Sort(tc.want)
			if diff := cmp.Diff(tc.want, own); diff != "" {
				t.Errorf("rights (-want +got):\n%s", diff)
			}
		})
	}
}

// rightsOf asks what a user may do in a namespace.
func rightsOf(t *testing.T, config *rest.Config, namespace string) []string {
	t.Helper()
	review := &authorizationv1.SelfSubjectRulesReview{Spec: authorizationv1.SelfSubjectRulesReviewSpec{Namespace: namespace}}
	if err := as(t, config).Create(t.Context(), review); err != nil {
		t.Fatal(err)
	}
	return rights(review.Status.ResourceRules)
}

// rights writes rules one to a line: verbs, resource, group and names.
func rights(rules []authorizationv1.ResourceRule) []string {
	var all []string
	for _, rule := range rules {
		slices.Sort(rule.Verbs)
		for _, group := range rule.APIGroups {
			for _, resource := range rule.Resources {
				right := strings.Join(rule.Verbs, ",") + " " + resource + "." + group
				if len(rule.ResourceNames) > 0 {
					right += fmt.Sprint(rule.ResourceNames)
				}
				all = append(all, right)
			}
		}
	}
	slices.Sort(all)
	return all
}

// TestManagerImpersonates tries whom the gateway could become if it were taken over.
func TestManagerImpersonates(t *testing.T) {
	namespace := env.Namespace(t.Context())
	for _, tc := range []struct {
		name    string
		who     rest.ImpersonationConfig
		refused string
	}{
		{"the agent of a host", rest.ImpersonationConfig{UserName: testenv.AgentUser, Extra: extra([]string{namespace + "/web-01"})}, ""},
		{"an administrator", rest.ImpersonationConfig{UserName: "admin"}, `cannot impersonate resource "users"`},
		{"itself", rest.ImpersonationConfig{UserName: testenv.ManagerUser}, `cannot impersonate resource "serviceaccounts"`},
		{"an account of its namespace", rest.ImpersonationConfig{UserName: "system:serviceaccount:nixfleet-system:default"}, `cannot impersonate resource "serviceaccounts"`},
		{"an account of that name elsewhere", rest.ImpersonationConfig{UserName: "system:serviceaccount:default:nixfleet-agent"}, `cannot impersonate resource "serviceaccounts"`},
		{"the agent in a group", rest.ImpersonationConfig{UserName: testenv.AgentUser, Groups: []string{"system:masters"}}, `cannot impersonate resource "groups"`},
		{"the agent with another extra", rest.ImpersonationConfig{UserName: testenv.AgentUser, Extra: map[string][]string{"scopes": {"all"}}}, `cannot impersonate resource "userextras/scopes"`},
		{"the agent with a uid", rest.ImpersonationConfig{UserName: testenv.AgentUser, UID: "1"}, `cannot impersonate resource "uids"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			review := &authorizationv1.SelfSubjectRulesReview{Spec: authorizationv1.SelfSubjectRulesReviewSpec{Namespace: namespace}}
			check(t, as(t, impersonating(env.ManagerConfig(), tc.who)).Create(t.Context(), review), tc.refused)
		})
	}
}

// TestAgentReadsNothing makes the requests that a stolen account of agents would.
func TestAgentReadsNothing(t *testing.T) {
	ctx := t.Context()
	namespace := env.Namespace(ctx)
	host := &nfv1.Host{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "web-01"}, Spec: nfv1.HostSpec{Platform: nfv1.PlatformX8664Linux}}
	if err := env.Client.Create(ctx, host); err != nil {
		t.Fatal(err)
	}
	c := actingFor(t, namespace+"/web-01")
	for name, request := range map[string]func() error{
		`cannot get resource "hosts"`:     func() error { return c.Get(ctx, client.ObjectKeyFromObject(host), &nfv1.Host{}) },
		`cannot list resource "hosts"`:    func() error { return c.List(ctx, &nfv1.HostList{}, client.InNamespace(namespace)) },
		`cannot list resource "releases"`: func() error { return c.List(ctx, &nfv1.ReleaseList{}, client.InNamespace(namespace)) },
		`cannot list resource "secrets"`:  func() error { return c.List(ctx, &corev1.SecretList{}, client.InNamespace(namespace)) },
		`cannot patch resource "hosts"`: func() error {
			return c.Patch(ctx, host.DeepCopy(), patchYAML(t, "spec: {lifecycle: Maintenance}"))
		},
		`cannot delete resource "hosts"`:        func() error { return c.Delete(ctx, host.DeepCopy()) },
		`cannot update resource "hosts/status"`: func() error { return c.Status().Update(ctx, host.DeepCopy()) },
		`cannot patch resource "rollouts/status"`: func() error {
			return c.Status().Patch(ctx, named("Rollout", namespace), patchYAML(t, "status: {phase: Succeeded}"))
		},
	} {
		t.Run(name, func(t *testing.T) { wantRefused(t, request(), name) })
	}
}

func named(kind, namespace string) *object {
	o := &object{}
	o.SetGroupVersionKind(nfv1.GroupVersion.WithKind(kind))
	o.SetNamespace(namespace)
	o.SetName("a")
	return o
}

// TestPeople binds the roles for people in a namespace and tries them.
func TestPeople(t *testing.T) {
	ctx := t.Context()
	namespace := env.Namespace(ctx)
	person := func(role string) client.Client {
		binding := &rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: role},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
			Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: role}},
		}
		if err := env.Client.Create(ctx, binding); err != nil {
			t.Fatal(err)
		}
		return as(t, env.As(role))
	}
	viewer, editor := person("nixfleet-viewer"), person("nixfleet-editor")
	host := newHost(t, namespace, minimal)
	for who, c := range map[string]client.Client{"viewer": viewer, "editor": editor} {
		for _, list := range []client.ObjectList{&nfv1.HostList{}, &nfv1.ReleaseList{}, &nfv1.RolloutList{}} {
			check(t, c.List(ctx, list, client.InNamespace(namespace)), "")
			wantRefused(t, c.List(ctx, list, client.InNamespace("default")), "cannot list resource")
		}
		t.Run(who+" writes no status", func(t *testing.T) {
			wantRefused(t, c.Status().Patch(ctx, host.DeepCopy(), patchYAML(t, "status: {phase: Idle}")), `cannot patch resource "hosts/status"`)
		})
	}
	for kind := range smallest {
		wantRefused(t, viewer.Create(ctx, small(t, kind, namespace)), "cannot create resource")
		o := small(t, kind, namespace)
		check(t, editor.Create(ctx, o), "")
		check(t, editor.Patch(ctx, o.DeepCopy(), patchYAML(t, "metadata: {labels: {a: b}}")), "")
		check(t, editor.Delete(ctx, o), "")
	}
	wantRefused(t, editor.Patch(ctx, host.DeepCopy(), patchYAML(t, "spec: {desired: "+desired1+"}")), onlyTheController)

	for role, want := range map[string][]string{
		"nixfleet-viewer": {"admin", "edit", "view"},
		"nixfleet-editor": {"admin", "edit"},
	} {
		t.Run(role+" is part of the roles that every cluster has", func(t *testing.T) {
			stored := &rbacv1.ClusterRole{}
			if err := env.Client.Get(ctx, client.ObjectKey{Name: role}, stored); err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, into := range []string{"admin", "edit", "view"} {
				if stored.Labels["rbac.authorization.k8s.io/aggregate-to-"+into] == "true" {
					got = append(got, into)
				}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("aggregated to (-want +got):\n%s", diff)
			}
		})
	}
}
