// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

//go:build integration

package rollout

import (
	"context"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

var _ = Describe("An override of a host", func() {
	var f *fleet
	var r *OverrideReconciler

	override := func(ctx context.Context, o *nfv1.DesiredOverride) {
		GinkgoHelper()
		h := f.host(ctx, "web")
		before := h.DeepCopy()
		h.Spec.Override = o
		Expect(env.Client.Patch(ctx, h, client.MergeFrom(before))).To(Succeed())
	}
	carryOut := func(ctx context.Context) {
		GinkgoHelper()
		_, err := r.Reconcile(ctx, ctrl.Request{NamespacedName: f.key("web")})
		Expect(err).NotTo(HaveOccurred())
	}

	BeforeEach(func(ctx SpecContext) {
		f = newFleet(ctx, "web")
		r = &OverrideReconciler{Client: f.reconciler.Client, Live: env.Client, Clock: f.clock, Recorder: f.events}
	})

	It("adopts a system that was activated by hand, once", func(ctx SpecContext) {
		override(ctx, &nfv1.DesiredOverride{ID: "hotfix", StorePath: path("hotfix", "web")})
		carryOut(ctx)
		d := f.host(ctx, "web").Spec.Desired
		Expect(d).NotTo(BeNil())
		Expect([]any{d.Intent, d.StorePath, d.OverrideID, d.Rollout}).To(Equal([]any{nfv1.IntentDeploy, path("hotfix", "web"), "hotfix", (*nfv1.ObjectReference)(nil)}))
		carryOut(ctx)
		Expect(f.host(ctx, "web").Spec.Desired.Revision).To(Equal(d.Revision))
	})

	It("drops an assignment that will never be met", func(ctx SpecContext) {
		f.addRelease(ctx, "a", "web")
		f.addRollout(ctx, "r", "a", nil)
		f.reconcile(ctx, "r")
		f.finish(ctx, "web", nfv1.AttemptSucceeded)
		f.reconcile(ctx, "r")
		Expect(f.rollout(ctx, "r").Status.Phase).To(Equal(nfv1.RolloutPhaseSucceeded))
		override(ctx, &nfv1.DesiredOverride{ID: "drop", Clear: nfv1.OverrideClearDesired})
		carryOut(ctx)
		d := f.host(ctx, "web").Spec.Desired
		Expect([]any{d.Intent, d.StorePath, d.Revision}).To(Equal([]any{nfv1.IntentNone, nfv1.StorePath(""), int64(2)}))
	})

	It("waits for the rollout that has the host", func(ctx SpecContext) {
		f.addRelease(ctx, "a", "web")
		f.addRollout(ctx, "r", "a", nil)
		f.reconcile(ctx, "r")
		override(ctx, &nfv1.DesiredOverride{ID: "hotfix", StorePath: path("hotfix", "web")})
		carryOut(ctx)
		carryOut(ctx)
		Expect(f.host(ctx, "web").Spec.Desired.OverrideID).To(BeEmpty())
		Expect(recorded(f, "OverrideWaits")).To(Equal(1), "events that it waits")
		f.finish(ctx, "web", nfv1.AttemptSucceeded)
		f.reconcile(ctx, "r")
		carryOut(ctx)
		Expect(f.host(ctx, "web").Spec.Desired.OverrideID).To(Equal("hotfix"))
		Expect(recorded(f, "OverrideCarriedOut")).To(Equal(1), "events that it was carried out")
	})
})

// recorded takes the events so far and counts those of a reason.
func recorded(f *fleet, reason string) int {
	n := 0
	for len(f.events.Events) > 0 {
		if strings.Contains(<-f.events.Events, " "+reason+" ") {
			n++
		}
	}
	return n
}
