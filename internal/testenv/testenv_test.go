//go:build integration

// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package testenv

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

func TestStart(t *testing.T) {
	env := Start(t)
	ctx := t.Context()

	namespace := env.Namespace(ctx)
	if other := env.Namespace(ctx); other == namespace {
		t.Errorf("Namespace returned %s twice", namespace)
	}
	host := &nfv1.Host{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "web-01"},
		Spec:       nfv1.HostSpec{Platform: nfv1.PlatformX8664Linux},
	}
	if err := env.Client.Create(ctx, host); err != nil {
		t.Fatalf("the custom resources are not served: %v", err)
	}
	host.Spec.Desired = &nfv1.Desired{Revision: 1, Intent: nfv1.IntentNone, AssignedTime: metav1.Now()}
	if err := env.Client.Update(ctx, host); !apierrors.IsForbidden(err) {
		t.Errorf("the policies are not enforced: a write of spec.desired returned %v", err)
	}

	manager, err := env.ClientFor(env.ManagerConfig())
	if err != nil {
		t.Fatal(err)
	}
	if err := manager.Get(ctx, client.ObjectKeyFromObject(host), &nfv1.Host{}); err != nil {
		t.Errorf("the manager cannot read Hosts: %v", err)
	}
	if err := manager.List(ctx, &rbacv1.ClusterRoleList{}); !apierrors.IsForbidden(err) {
		t.Errorf("the manager has more rights than its own: listing ClusterRoles returned %v", err)
	}

	user, err := env.ClientFor(env.As("alice", "admins"))
	if err != nil {
		t.Fatal(err)
	}
	review := &authenticationv1.SelfSubjectReview{}
	if err := user.Create(ctx, review); err != nil {
		t.Fatal(err)
	}
	if got := review.Status.UserInfo; got.Username != "alice" || len(got.Groups) == 0 || got.Groups[0] != "admins" {
		t.Errorf("As(alice, admins) acts as %s of %v", got.Username, got.Groups)
	}
}

func TestFindAssets(t *testing.T) {
	t.Run("the variable wins", func(t *testing.T) {
		directory := t.TempDir()
		for _, program := range []string{"kube-apiserver", "etcd"} {
			if err := os.WriteFile(filepath.Join(directory, program), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		t.Setenv(assetsVariable, directory)
		if got, err := findAssets(); err != nil || got != directory {
			t.Errorf("findAssets() = %q, %v, want %q", got, err, directory)
		}
	})
	t.Run("nothing there", func(t *testing.T) {
		t.Setenv(assetsVariable, t.TempDir())
		if _, err := findAssets(); err == nil || !strings.Contains(err.Error(), assetsTarget) {
			t.Errorf("findAssets() returned %v, want an error that names %q", err, assetsTarget)
		}
	})
	t.Run("the nested modules are not the root", func(t *testing.T) {
		here, err := os.Getwd()
		if err != nil {
			t.Fatal(err)
		}
		root := filepath.Dir(filepath.Dir(here))
		t.Chdir(filepath.Join(root, "cmd", "control-plane"))
		if got, err := findRoot(); err != nil || got != root {
			t.Errorf("findRoot() = %q, %v, want %q", got, err, root)
		}
	})
	t.Run("not in a checkout", func(t *testing.T) {
		t.Chdir(t.TempDir())
		if got, err := findRoot(); err == nil {
			t.Errorf("findRoot() = %q, want an error", got)
		}
	})
}
