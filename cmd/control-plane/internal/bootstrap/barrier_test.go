// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package bootstrap

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

// server is a fake API server whose policies take effect after a while.
type server struct {
	*fake.Clientset
	probes int
	// answer is what the nth probe, counted from 1, is told.
	answer func(n int, name string) error
}

func newServer(answer func(n int, name string) error) *server {
	s := &server{Clientset: fake.NewClientset(), answer: answer}
	s.PrependReactor("create", "configmaps", func(action clienttesting.Action) (bool, runtime.Object, error) {
		s.probes++
		object := action.(clienttesting.CreateAction).GetObject().(*corev1.ConfigMap)
		return true, object, s.answer(s.probes, object.Name)
	})
	return s
}

func denied(name string) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: 422, Reason: metav1.StatusReasonInvalid, Message: "ValidatingAdmissionPolicy denied request: " + name,
	}}
}

func TestWaitEnforced(t *testing.T) {
	outage := errors.New("etcd is away")
	tests := map[string]struct {
		answer func(n int, name string) error
		probes int
		err    string
	}{
		"in effect from the start": {
			answer: func(_ int, name string) error { return denied(name) },
			probes: 1,
		},
		"in effect after some time": {
			answer: func(n int, name string) error {
				if n < 4 {
					return nil
				}
				return denied(name)
			},
			probes: 4,
		},
		"another probe's refusal does not count": {
			answer: func(int, string) error { return denied(probeName + "-other") },
			probes: 1,
			err:    "wait for the admission policies",
		},
		"the server fails": {
			answer: func(int, string) error { return outage },
			probes: 1,
			err:    outage.Error(),
		},
		"never in effect": {
			answer: func(int, string) error { return nil },
			probes: int(enforceTimeout / enforceInterval),
			err:    "are not enforced after 1m0s",
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newServer(tc.answer)

				err := waitEnforced(t.Context(), s)

				switch {
				case tc.err == "" && err != nil:
					t.Error(err)
				case tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)):
					t.Errorf("got %v, want an error with %q", err, tc.err)
				}
				if s.probes < tc.probes || s.probes > tc.probes+1 {
					t.Errorf("asked %d times, want about %d", s.probes, tc.probes)
				}
				checkNothingStays(t, s)
			})
		})
	}
}

func TestWaitEnforcedThatIsCancelledLeavesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		s := newServer(func(int, string) error { cancel(); return nil })

		if err := waitEnforced(ctx, s); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want that it was cancelled", err)
		}
		checkNothingStays(t, s)
	})
}

func checkNothingStays(t *testing.T, s *server) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	policies, err := s.AdmissionregistrationV1().ValidatingAdmissionPolicies().List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	bindings, err := s.AdmissionregistrationV1().ValidatingAdmissionPolicyBindings().List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(policies.Items)+len(bindings.Items) != 0 {
		t.Errorf("%d policies and %d bindings stay", len(policies.Items), len(bindings.Items))
	}
	if !applied(s, "validatingadmissionpolicies") || !applied(s, "validatingadmissionpolicybindings") {
		t.Error("the probe was not stored")
	}
}

func applied(s *server, resource string) bool {
	for _, action := range s.Actions() {
		if action.Matches("patch", resource) {
			return true
		}
	}
	return false
}
