// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

//go:build integration

package rollout

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

func canary(s *nfv1.RolloutSpec) { s.Strategy.Type = nfv1.StrategyCanary }

// assigned are the hosts that a rollout asks to run something.
func (f *fleet) assigned(ctx context.Context, ro *nfv1.Rollout) []string {
	GinkgoHelper()
	var list nfv1.HostList
	Expect(env.Client.List(ctx, &list, client.InNamespace(f.namespace))).To(Succeed())
	var out []string
	for _, h := range list.Items {
		if d := h.Spec.Desired; d != nil && d.Rollout != nil && d.Rollout.UID == ro.UID && d.Intent == nfv1.IntentDeploy {
			out = append(out, h.Name)
		}
	}
	return out
}

var _ = Describe("a rollout", func() {
	It("claims its release, records its wave and then assigns", func(ctx SpecContext) {
		f := newFleet(ctx, "a", "b")
		rel := f.addRelease(ctx, "r1", "a", "b")
		ro := f.addRollout(ctx, "to-r1", "r1", nil)
		f.reconcile(ctx, "to-r1")

		Expect(f.assigned(ctx, ro)).To(ConsistOf("a", "b"))
		d := f.host(ctx, "a").Spec.Desired
		Expect(d.Revision).To(BeEquivalentTo(1))
		Expect(d.StorePath).To(Equal(path("r1", "a")))
		Expect(d.PreviousStorePath).To(Equal(path("factory", "a")))
		Expect(d.Release).To(Equal(&nfv1.ObjectReference{Name: "r1", UID: rel.UID}))
		Expect(d.Caches).To(Equal([]nfv1.CacheURL{"https://cache.example.org"}))
		Expect(f.rollout(ctx, "to-r1").Finalizers).To(ContainElement(nfv1.FinalizerHosts))
		Expect(f.rollout(ctx, "to-r1").Status.ReleaseUID).To(Equal(rel.UID))
		Expect(env.Client.Get(ctx, f.key("r1"), rel)).To(Succeed())
		Expect(rel.Finalizers).To(ContainElement(nfv1.FinalizerInUse))
	})

	It("moves the rest after the canary, ends Succeeded and lets go", func(ctx SpecContext) {
		f := newFleet(ctx, "a", "b", "c")
		f.addRelease(ctx, "r1", "a", "b", "c")
		ro := f.addRollout(ctx, "to-r1", "r1", canary)
		f.reconcile(ctx, "to-r1")
		first := f.assigned(ctx, ro)
		Expect(first).To(HaveLen(1))
		f.finish(ctx, first[0], nfv1.AttemptSucceeded)
		f.reconcile(ctx, "to-r1")
		Expect(f.assigned(ctx, ro)).To(HaveLen(3))
		for _, h := range []string{"a", "b", "c"} {
			f.finish(ctx, h, nfv1.AttemptSucceeded)
		}
		f.reconcile(ctx, "to-r1")
		end := f.rollout(ctx, "to-r1")
		Expect(end.Status.Phase).To(Equal(nfv1.RolloutPhaseSucceeded))
		Expect(end.Status.HostProgress).To(Equal("3/3"))
		Expect(end.Finalizers).To(BeEmpty())
	})

	It("pauses after a failed canary, says so once and touches nobody else", func(ctx SpecContext) {
		f := newFleet(ctx, "a", "b", "c")
		f.addRelease(ctx, "r1", "a", "b", "c")
		ro := f.addRollout(ctx, "to-r1", "r1", canary)
		f.reconcile(ctx, "to-r1")
		first := f.assigned(ctx, ro)[0]
		f.finish(ctx, first, nfv1.AttemptRolledBack)
		for range 3 {
			f.reconcile(ctx, "to-r1")
		}
		Expect(f.assigned(ctx, ro)).To(Equal([]string{first}))
		end := f.rollout(ctx, "to-r1")
		Expect(end.Status.Phase).To(Equal(nfv1.RolloutPhasePaused))
		Expect(end.Status.Failures).To(HaveLen(1))
		failed := 0
		for len(f.events.Events) > 0 {
			if strings.Contains(<-f.events.Events, "HostFailed") {
				failed++
			}
		}
		Expect(failed).To(Equal(1), "HostFailed events")
	})

	It("writes nothing when nothing has changed", func(ctx SpecContext) {
		f := newFleet(ctx, "a")
		f.addRelease(ctx, "r1", "a")
		f.addRollout(ctx, "to-r1", "r1", nil)
		f.reconcile(ctx, "to-r1")
		f.reconcile(ctx, "to-r1")
		host, ro := f.host(ctx, "a").ResourceVersion, f.rollout(ctx, "to-r1").ResourceVersion
		for range 3 {
			f.reconcile(ctx, "to-r1")
		}
		Expect(f.host(ctx, "a").ResourceVersion).To(Equal(host))
		Expect(f.rollout(ctx, "to-r1").ResourceVersion).To(Equal(ro))
	})

	It("keeps its assignment when Git applies the Host again", func(ctx SpecContext) {
		f := newFleet(ctx, "a")
		f.addRelease(ctx, "r1", "a")
		f.addRollout(ctx, "to-r1", "r1", nil)
		f.reconcile(ctx, "to-r1")
		fromGit := &nfv1.Host{
			TypeMeta:   metav1.TypeMeta{APIVersion: nfv1.GroupVersion.String(), Kind: "Host"},
			ObjectMeta: metav1.ObjectMeta{Namespace: f.namespace, Name: "a", Labels: map[string]string{"from": "git"}},
			Spec:       nfv1.HostSpec{Platform: nfv1.PlatformX8664Linux},
		}
		Expect(env.Client.Patch(ctx, fromGit, client.Apply, client.FieldOwner("gitops"))).To(Succeed()) //nolint:staticcheck // as GitOps tools do
		Expect(f.host(ctx, "a").Spec.Desired.StorePath).To(Equal(path("r1", "a")))
	})

	It("holds a deletion until the hosts in flight have finished", func(ctx SpecContext) {
		f := newFleet(ctx, "a", "b", "c")
		f.addRelease(ctx, "r1", "a", "b", "c")
		ro := f.addRollout(ctx, "to-r1", "r1", canary)
		f.reconcile(ctx, "to-r1")
		first := f.assigned(ctx, ro)[0]
		f.report(ctx, first, func(s *nfv1.HostStatus, h *nfv1.Host) {
			s.ObservedRevision, s.Phase = h.Spec.Desired.Revision, nfv1.HostPhaseActivating
		})
		Expect(env.Client.Delete(ctx, f.rollout(ctx, "to-r1"))).To(Succeed())
		f.reconcile(ctx, "to-r1")
		Expect(f.rollout(ctx, "to-r1").Status.Phase).To(Equal(nfv1.RolloutPhaseCancelling))
		f.finish(ctx, first, nfv1.AttemptSucceeded)
		f.reconcile(ctx, "to-r1")
		err := env.Client.Get(ctx, f.key("to-r1"), &nfv1.Rollout{})
		Expect(apierrors.IsNotFound(err)).To(BeTrue(), "the rollout is gone: %v", err)
		Expect(f.assigned(ctx, ro)).To(Equal([]string{first}))
	})

	It("lets a younger rollout wait for the older one", func(ctx SpecContext) {
		f := newFleet(ctx, "a", "b")
		f.addRelease(ctx, "r1", "a", "b")
		f.addRelease(ctx, "r2", "a", "b")
		older := f.addRollout(ctx, "older", "r1", nil)
		younger := f.addRollout(ctx, "younger", "r2", func(s *nfv1.RolloutSpec) { s.Selector, s.Hosts = nil, []nfv1.HostName{"a"} })
		holder, waiting := older, younger
		if younger.CreationTimestamp.Equal(&older.CreationTimestamp) && younger.UID < older.UID {
			holder, waiting = younger, older // the same second: the UID decides
		}
		f.reconcile(ctx, holder.Name)
		f.reconcile(ctx, waiting.Name)
		Expect(f.assigned(ctx, waiting)).NotTo(ContainElement("a"))
		Expect(f.assigned(ctx, holder)).To(ContainElement("a"))
	})

	It("tries again on what changed meanwhile, and assigns nobody twice", func(ctx SpecContext) {
		f := newFleet(ctx, "a", "b")
		f.addRelease(ctx, "r1", "a", "b")
		ro := f.addRollout(ctx, "to-r1", "r1", nil)
		var conflicts atomic.Int32
		conflicts.Store(1)
		watched, err := client.NewWithWatch(env.ManagerConfig(), client.Options{Scheme: env.Scheme})
		Expect(err).NotTo(HaveOccurred())
		f.reconciler = f.newReconciler(interceptor.NewClient(watched, interceptor.Funcs{
			Patch: func(ctx context.Context, c client.WithWatch, o client.Object, p client.Patch, opts ...client.PatchOption) error {
				if _, host := o.(*nfv1.Host); host && conflicts.Add(-1) >= 0 {
					return apierrors.NewConflict(schema.GroupResource{Resource: "hosts"}, o.GetName(), errors.New("injected"))
				}
				return c.Patch(ctx, o, p, opts...)
			},
		}))
		f.reconciler.Writers = 1
		Expect(f.reconcile(ctx, "to-r1").RequeueAfter).To(Equal(conflictDelay))
		f.reconcile(ctx, "to-r1")
		Expect(f.assigned(ctx, ro)).To(ConsistOf("a", "b"))
		for _, h := range []string{"a", "b"} {
			Expect(f.host(ctx, h).Spec.Desired.Revision).To(BeEquivalentTo(1))
		}
	})

	It("goes on after a write that was stored although the answer was lost", func(ctx SpecContext) {
		f := newFleet(ctx, "a", "b")
		f.addRelease(ctx, "r1", "a", "b")
		ro := f.addRollout(ctx, "to-r1", "r1", nil)
		var lost atomic.Int32
		lost.Store(1)
		watched, err := client.NewWithWatch(env.ManagerConfig(), client.Options{Scheme: env.Scheme})
		Expect(err).NotTo(HaveOccurred())
		f.reconciler = f.newReconciler(interceptor.NewClient(watched, interceptor.Funcs{
			Patch: func(ctx context.Context, c client.WithWatch, o client.Object, p client.Patch, opts ...client.PatchOption) error {
				err := c.Patch(ctx, o, p, opts...)
				if _, host := o.(*nfv1.Host); host && err == nil && lost.Add(-1) >= 0 {
					return apierrors.NewTimeoutError("injected after the write", 1)
				}
				return err
			},
		}))
		_, err = f.reconciler.Reconcile(ctx, ctrl.Request{NamespacedName: f.key("to-r1")})
		Expect(err).To(MatchError(ContainSubstring("injected after the write")))
		f.reconcile(ctx, "to-r1")
		for _, h := range f.assigned(ctx, ro) {
			Expect(f.host(ctx, h).Spec.Desired.Revision).To(BeEquivalentTo(1))
		}
	})
})
