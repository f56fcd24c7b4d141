// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package manager

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

// TestTrim: but for the owners of fields the cached Host says what the stored one does.
func TestTrim(t *testing.T) {
	stored := &nfv1.Host{
		ObjectMeta: metav1.ObjectMeta{
			Name: "web", Namespace: "fleet", Labels: map[string]string{"role": "web", "ring": "web"},
			ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "kubectl"}},
		},
		Spec: nfv1.HostSpec{
			Platform: nfv1.PlatformX8664Linux,
			Desired: &nfv1.Desired{
				Revision: 3, StorePath: "/nix/store/a", PreviousStorePath: "/nix/store/b", Wave: "rest", Caches: []nfv1.CacheURL{"https://cache.example.org"},
				Release: &nfv1.ObjectReference{Name: "r", UID: "u"},
			},
		},
		Status: nfv1.HostStatus{
			Running:    &nfv1.SystemGeneration{StorePath: "/nix/store/a", Generation: 7},
			Attempt:    &nfv1.HostAttempt{Revision: 3, StorePath: "/nix/store/a", Message: "done"},
			History:    []nfv1.HostAttempt{{Revision: 2, Phases: []nfv1.PhaseDuration{{Phase: nfv1.HostPhaseFetching, Seconds: 3}}}},
			Conditions: []metav1.Condition{{Type: nfv1.ConditionReady, Status: metav1.ConditionTrue, Reason: "UpToDate"}},
		},
	}
	want := stored.DeepCopy()
	want.ManagedFields = nil
	got, err := trim(stored)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatal(diff)
	}
}

// TestTrimTakesAnything: a cache also holds tombstones and objects of other kinds.
func TestTrimTakesAnything(t *testing.T) {
	for _, o := range []any{nil, "text", &nfv1.Host{}, &nfv1.Rollout{}} {
		if got, err := trim(o); err != nil || !cmp.Equal(got, o) {
			t.Errorf("%v becomes %v, %v", o, got, err)
		}
	}
}
