// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package rollout

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

func TestOverride(t *testing.T) {
	byHand := storePath("hotfix", "h")
	tests := map[string]struct {
		prepare func(*world, *nfv1.Host)
		want    *nfv1.Desired
		heldBy  string
	}{
		"none": {prepare: func(_ *world, h *nfv1.Host) { h.Spec.Override = nil }},
		"adopt what was switched to by hand": {
			want: &nfv1.Desired{Revision: 1, Intent: nfv1.IntentDeploy, StorePath: byHand, PreviousStorePath: storePath("factory", "h"), OverrideID: "x"},
		},
		"after a rollout has ended": {
			prepare: func(w *world, _ *nfv1.Host) { w.addRollout("r", "a", nil); w.settle() },
			want: &nfv1.Desired{
				Revision: 2, Intent: nfv1.IntentDeploy, StorePath: byHand, PreviousStorePath: storePath("a", "h"), OverrideID: "x",
				Caches: []nfv1.CacheURL{"https://cache.example.org"}, PreviousCaches: []nfv1.CacheURL{"https://cache.example.org"},
			},
		},
		"drop the assignment": {
			prepare: func(w *world, h *nfv1.Host) {
				w.addRollout("r", "a", nil)
				w.settle()
				h.Spec.Override = &nfv1.DesiredOverride{ID: "x", Clear: nfv1.OverrideClearDesired}
			},
			want: &nfv1.Desired{Revision: 2, Intent: nfv1.IntentNone, OverrideID: "x"},
		},
		"above what the agent has seen": {
			prepare: func(_ *world, h *nfv1.Host) { h.Status.ObservedRevision = 41 },
			want:    &nfv1.Desired{Revision: 42, Intent: nfv1.IntentDeploy, StorePath: byHand, PreviousStorePath: storePath("factory", "h"), OverrideID: "x"},
		},
		"done already":       {prepare: func(_ *world, h *nfv1.Host) { h.Spec.Desired = &nfv1.Desired{Revision: 1, OverrideID: "x"} }},
		"host goes away":     {prepare: func(w *world, h *nfv1.Host) { now := w.stamp(); h.DeletionTimestamp = &now }},
		"rollout selects it": {prepare: func(w *world, _ *nfv1.Host) { w.addRollout("r", "a", nil) }, heldBy: "r"},
		"paused rollout selects it": {
			prepare: func(w *world, _ *nfv1.Host) { w.addRollout("r", "a", nil).Spec.State = nfv1.RolloutStatePaused },
			heldBy:  "r",
		},
		"in flight of a rollout that selects it no more": {
			prepare: func(w *world, _ *nfv1.Host) {
				ro := w.addRollout("r", "a", nil)
				w.plan(ro, -1)
				ro.Spec.Selector, ro.Spec.Hosts = nil, []nfv1.HostName{"another"}
			},
			heldBy: "r",
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld("h")
			w.addRelease("a")
			h := w.host("h")
			h.Spec.Override = &nfv1.DesiredOverride{ID: "x", StorePath: byHand}
			if tc.prepare != nil {
				tc.prepare(w, h)
			}
			got := PlanOverride(h, w.rollouts, w.now)
			switch {
			case tc.heldBy != "":
				if got.Assignment != nil || got.HeldBy == nil || got.HeldBy.Name != tc.heldBy {
					t.Fatalf("%+v, want held by %s", got, tc.heldBy)
				}
			case tc.want == nil:
				if got.Assignment != nil || got.HeldBy != nil {
					t.Fatalf("%+v, want nothing", got)
				}
			default:
				tc.want.AssignedTime = metav1.NewTime(w.now)
				if got.Assignment == nil {
					t.Fatalf("%+v, want an assignment", got)
				}
				if diff := cmp.Diff(*tc.want, got.Assignment.Desired); diff != "" {
					t.Fatal(diff)
				}
			}
		})
	}
}

// TestOverrideIsCarriedOutOnce: rollouts that come later carry the id on, so that an
// override of long ago does not come back.
func TestOverrideIsCarriedOutOnce(t *testing.T) {
	w := newWorld("h")
	w.addRelease("a")
	h := w.host("h")
	h.Spec.Override = &nfv1.DesiredOverride{ID: "x", StorePath: storePath("hotfix", "h")}
	d := PlanOverride(h, w.rollouts, w.now)
	h.Spec.Desired = &d.Assignment.Desired
	ro := w.addRollout("r", "a", nil)
	w.settle()
	wantPhase(t, ro, nfv1.RolloutPhaseSucceeded, "1 of 1 host run release a")
	if again := PlanOverride(h, w.rollouts, w.now); again.Assignment != nil {
		t.Fatalf("the override is carried out again: %+v", again.Assignment.Desired)
	}
}
