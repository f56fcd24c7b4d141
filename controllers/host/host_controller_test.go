// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

//go:build integration

package host

import (
	"context"
	"fmt"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	testingclock "k8s.io/utils/clock/testing"
	kstatus "sigs.k8s.io/cli-utils/pkg/kstatus/status"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/ssa"
)

// fixture is one Host and a controller of its own, whose clock the spec moves.
type fixture struct {
	clock      *testingclock.FakeClock
	recorder   *events.FakeRecorder
	reconciler *Reconciler
	host       *nfv1.Host
	renewals   int
}

func newFixture(ctx context.Context, lifecycle nfv1.Lifecycle, keys ...string) *fixture {
	GinkgoHelper()
	f := &fixture{clock: testingclock.NewFakeClock(time.Now().Truncate(time.Second)), host: &nfv1.Host{
		ObjectMeta: metav1.ObjectMeta{Namespace: env.Namespace(ctx), Name: "web-01"},
		Spec:       nfv1.HostSpec{Platform: nfv1.PlatformX8664Linux, Lifecycle: lifecycle, Identity: nfv1.HostIdentity{PublicKeys: keys}},
	}}
	Expect(env.Client.Create(ctx, f.host)).To(Succeed())
	f.newLeader()
	return f
}

// newLeader is a controller that has seen nothing yet.
func (f *fixture) newLeader() {
	f.recorder = events.NewFakeRecorder(100)
	f.reconciler = &Reconciler{Client: asManager, Clock: f.clock, Recorder: f.recorder, OfflineAfter: window}
}

func (f *fixture) reconcile(ctx context.Context) ctrl.Result {
	GinkgoHelper()
	result, err := f.reconciler.Reconcile(ctx, ctrl.Request{NamespacedName: client.ObjectKeyFromObject(f.host)})
	Expect(err).NotTo(HaveOccurred())
	return result
}

func (f *fixture) read(ctx context.Context) *nfv1.Host {
	GinkgoHelper()
	Expect(env.Client.Get(ctx, client.ObjectKeyFromObject(f.host), f.host)).To(Succeed())
	return f.host
}

func (f *fixture) lease(ctx context.Context) (*coordinationv1.Lease, error) {
	var lease coordinationv1.Lease
	err := env.Client.Get(ctx, types.NamespacedName{Namespace: f.host.Namespace, Name: nfv1.LeaseName(f.host.Name)}, &lease)
	return &lease, err
}

// renew is what the agent does once a minute. Its clock is wrong.
func (f *fixture) renew(ctx context.Context) {
	GinkgoHelper()
	f.renewals++
	patch := fmt.Sprintf(`{"spec":{"renewTime":"1970-01-01T00:00:%02d.000000Z"}}`, f.renewals)
	lease, err := f.lease(ctx)
	Expect(err).NotTo(HaveOccurred())
	Expect(actingFor(f.host).Patch(ctx, lease, client.RawPatch(types.MergePatchType, []byte(patch)))).To(Succeed())
}

// agentReports writes a status as the agent does.
func (f *fixture) agentReports(ctx context.Context, phase nfv1.HostPhase, conditions ...metav1.Condition) {
	GinkgoHelper()
	host := f.read(ctx)
	status := &nfv1.HostStatus{
		Phase: phase, ObservedGeneration: host.Generation, ObservedRevision: 4, Conditions: conditions,
		Running: &nfv1.SystemGeneration{StorePath: "/nix/store/0c0mmgsdhjxf8x4sjzzqvxw1hxsyqbnd-nixos-system-web-01"},
	}
	Expect(ssa.Status(ctx, actingFor(host), nfv1.FieldOwnerAgent, host, ssa.SameObject, status)).To(Succeed())
}

func (f *fixture) move(ctx context.Context, lifecycle nfv1.Lifecycle) {
	GinkgoHelper()
	patch := fmt.Appendf(nil, `{"spec":{"lifecycle":%q}}`, lifecycle)
	Expect(env.Client.Patch(ctx, f.host, client.RawPatch(types.MergePatchType, patch))).To(Succeed())
}

func (f *fixture) events() []string {
	var all []string
	for {
		select {
		case e := <-f.recorder.Events:
			all = append(all, e)
		default:
			return all
		}
	}
}

func agentCondition(kind string, status metav1.ConditionStatus, reason string) metav1.Condition {
	return metav1.Condition{Type: kind, Status: status, Reason: reason, Message: "as the agent says", LastTransitionTime: metav1.Now()}
}

// settled is what deployment tools think of the Host.
func settled(host *nfv1.Host) kstatus.Status {
	GinkgoHelper()
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(host)
	Expect(err).NotTo(HaveOccurred())
	result, err := kstatus.Compute(&unstructured.Unstructured{Object: content})
	Expect(err).NotTo(HaveOccurred())
	return result.Status
}

func beOnline(status metav1.ConditionStatus, reason string) OmegaMatcher {
	return WithTransform(func(h *nfv1.Host) string {
		c := onlineOf(h)
		if c == nil {
			return "absent"
		}
		return string(c.Status) + " " + c.Reason
	}, Equal(string(status)+" "+reason))
}

var _ = Describe("A Host with an agent", func() {
	It("gets a Lease that the agent renews", func(ctx SpecContext) {
		f := newFixture(ctx, nfv1.LifecycleActive)
		Expect(f.reconcile(ctx).RequeueAfter).To(BeZero())
		lease, err := f.lease(ctx)
		Expect(err).NotTo(HaveOccurred())
		Expect(metav1.IsControlledBy(lease, f.read(ctx))).To(BeTrue())
		Expect(lease.Labels).To(HaveKeyWithValue(LeaseLabel, ""))
		Expect(f.host).To(beOnline("Unknown", nfv1.ReasonNeverSeen))
		Expect(settled(f.host)).To(Equal(kstatus.InProgressStatus), "nobody is to think that it is done")

		By("the first renewal")
		f.renew(ctx)
		Expect(f.reconcile(ctx).RequeueAfter).To(Equal(window))
		Expect(f.read(ctx)).To(beOnline("True", nfv1.ReasonLeaseRenewed))
		Expect(f.events()).To(ConsistOf(ContainSubstring("Online")))

		By("silence")
		f.clock.Step(window - time.Second)
		Expect(f.reconcile(ctx).RequeueAfter).To(Equal(time.Second))
		Expect(f.read(ctx)).To(beOnline("True", nfv1.ReasonLeaseRenewed))
		f.clock.Step(time.Second)
		Expect(f.reconcile(ctx).RequeueAfter).To(BeZero())
		Expect(f.read(ctx)).To(beOnline("Unknown", nfv1.ReasonLeaseExpired))
		Expect(f.events()).To(ConsistOf(ContainSubstring("Offline")))

		By("the return")
		f.renew(ctx)
		f.reconcile(ctx)
		Expect(f.read(ctx)).To(beOnline("True", nfv1.ReasonLeaseRenewed))
		Expect(onlineOf(f.host).LastTransitionTime.Time).To(BeTemporally("==", f.clock.Now()))
	})

	It("is written only when something has changed", func(ctx SpecContext) {
		f := newFixture(ctx, nfv1.LifecycleActive)
		f.reconcile(ctx)
		f.renew(ctx)
		f.reconcile(ctx)
		version := f.read(ctx).ResourceVersion
		for range 5 {
			f.clock.Step(30 * time.Second)
			f.renew(ctx)
			f.reconcile(ctx)
		}
		Expect(f.read(ctx).ResourceVersion).To(Equal(version))
	})

	It("keeps its state over a change of leader until it is seen anew", func(ctx SpecContext) {
		f := newFixture(ctx, nfv1.LifecycleActive)
		f.reconcile(ctx)
		f.renew(ctx)
		f.reconcile(ctx)

		By("a leader that sees no renewal yet")
		f.clock.Step(time.Hour)
		f.newLeader()
		Expect(f.reconcile(ctx).RequeueAfter).To(Equal(window))
		Expect(f.read(ctx)).To(beOnline("True", nfv1.ReasonLeaseRenewed))
		f.clock.Step(window)
		f.reconcile(ctx)
		Expect(f.read(ctx)).To(beOnline("Unknown", nfv1.ReasonLeaseExpired))

		By("a leader that finds an old renewal of a host that is gone")
		f.newLeader()
		f.reconcile(ctx)
		Expect(f.read(ctx)).To(beOnline("Unknown", nfv1.ReasonLeaseExpired))
	})

	It("shares its status with the agent", func(ctx SpecContext) {
		f := newFixture(ctx, nfv1.LifecycleActive)
		f.reconcile(ctx)
		f.agentReports(ctx, nfv1.HostPhaseIdle, agentCondition("Ready", "True", nfv1.ReasonUpToDate), agentCondition("Healthy", "True", "Passing"))
		f.renew(ctx)
		f.reconcile(ctx)
		host := f.read(ctx)
		Expect(host).To(beOnline("True", nfv1.ReasonLeaseRenewed))
		Expect(host.Status.ObservedGeneration).To(Equal(host.Generation))
		Expect(meta.IsStatusConditionTrue(host.Status.Conditions, "Healthy")).To(BeTrue())
		Expect(settled(host)).To(Equal(kstatus.CurrentStatus))

		By("a report after that")
		f.agentReports(ctx, nfv1.HostPhaseFetching, agentCondition("Ready", "Unknown", nfv1.ReasonAttemptInProgress))
		Expect(f.read(ctx)).To(beOnline("True", nfv1.ReasonLeaseRenewed))
	})

	It("gets its Lease back", func(ctx SpecContext) {
		f := newFixture(ctx, nfv1.LifecycleActive)
		f.reconcile(ctx)
		f.renew(ctx)
		f.reconcile(ctx)
		lease, err := f.lease(ctx)
		Expect(err).NotTo(HaveOccurred())
		Expect(env.Client.Delete(ctx, lease)).To(Succeed())
		f.reconcile(ctx)
		Expect(f.read(ctx)).To(beOnline("True", nfv1.ReasonLeaseRenewed), "that the Lease was deleted says nothing about the host")
		f.clock.Step(10 * time.Second)
		f.renew(ctx)
		Expect(f.reconcile(ctx).RequeueAfter).To(Equal(window))
	})

	It("does not share the Lease of the Host that had its name before", func(ctx SpecContext) {
		f := newFixture(ctx, nfv1.LifecycleActive)
		f.reconcile(ctx)
		f.renew(ctx)
		old, err := f.lease(ctx)
		Expect(err).NotTo(HaveOccurred())
		Expect(env.Client.Delete(ctx, f.host)).To(Succeed())
		f.host.ResourceVersion, f.host.UID = "", ""
		Expect(env.Client.Create(ctx, f.host)).To(Succeed())
		f.reconcile(ctx)
		lease, err := f.lease(ctx)
		Expect(err).NotTo(HaveOccurred())
		Expect(lease.UID).NotTo(Equal(old.UID))
		Expect(metav1.IsControlledBy(lease, f.host)).To(BeTrue())
		Expect(f.read(ctx)).To(beOnline("Unknown", nfv1.ReasonNeverSeen))
	})

	It("takes over a Lease that somebody made by hand", func(ctx SpecContext) {
		f := newFixture(ctx, nfv1.LifecycleActive)
		Expect(env.Client.Create(ctx, &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: f.host.Namespace, Name: nfv1.LeaseName("web-01")}})).To(Succeed())
		f.reconcile(ctx)
		f.renew(ctx)
	})
})

var _ = Describe("A Host without an agent", func() {
	for _, lifecycle := range []nfv1.Lifecycle{nfv1.LifecyclePending, nfv1.LifecycleDecommissioned} {
		It("has no Lease and is settled when "+string(lifecycle), func(ctx SpecContext) {
			f := newFixture(ctx, lifecycle)
			Expect(f.reconcile(ctx)).To(Equal(ctrl.Result{}))
			_, err := f.lease(ctx)
			Expect(apierrors.IsNotFound(err)).To(BeTrue())
			Expect(f.read(ctx)).To(beOnline("Unknown", nfv1.ReasonNoAgent))
			Expect(settled(f.host)).To(Equal(kstatus.CurrentStatus))
			version := f.host.ResourceVersion
			f.clock.Step(time.Hour)
			f.reconcile(ctx)
			Expect(f.read(ctx).ResourceVersion).To(Equal(version), "nothing has changed")
		})
	}

	It("keeps nothing that a former agent said about the present", func(ctx SpecContext) {
		f := newFixture(ctx, nfv1.LifecycleActive)
		f.reconcile(ctx)
		f.renew(ctx)
		f.reconcile(ctx)
		f.agentReports(ctx, nfv1.HostPhaseFetching,
			agentCondition("Ready", "True", nfv1.ReasonLifecycle), agentCondition("Reconciling", "True", nfv1.ReasonAttemptInProgress),
			agentCondition("Stalled", "True", nfv1.ReasonFetchFailed), agentCondition("Healthy", "True", "Passing"))
		f.move(ctx, nfv1.LifecycleDecommissioned)
		Expect(settled(f.read(ctx))).NotTo(Equal(kstatus.CurrentStatus))

		f.reconcile(ctx)
		host := f.read(ctx)
		Expect(settled(host)).To(Equal(kstatus.CurrentStatus))
		Expect(host.Status.Conditions).To(HaveLen(2))
		Expect(host.Status.Phase).To(BeEmpty())
		Expect(host.Status.Running).NotTo(BeNil(), "what it last ran stays on record")
		Expect(host.Status.ObservedRevision).To(Equal(int64(4)))
		_, err := f.lease(ctx)
		Expect(apierrors.IsNotFound(err)).To(BeTrue())

		By("a report that was on its way")
		f.agentReports(ctx, nfv1.HostPhaseIdle, agentCondition("Ready", "False", nfv1.ReasonUnhealthy), agentCondition("Stalled", "True", nfv1.ReasonUnhealthy))
		f.reconcile(ctx)
		Expect(settled(f.read(ctx))).To(Equal(kstatus.CurrentStatus))
		Expect(f.host.Status.Conditions).To(HaveLen(2))
	})

	It("can come back into service", func(ctx SpecContext) {
		f := newFixture(ctx, nfv1.LifecycleProvisioning)
		f.reconcile(ctx)
		f.agentReports(ctx, nfv1.HostPhaseIdle, agentCondition("Ready", "True", nfv1.ReasonUpToDate))
		f.move(ctx, nfv1.LifecyclePending)
		f.reconcile(ctx)
		Expect(settled(f.read(ctx))).To(Equal(kstatus.CurrentStatus))

		f.move(ctx, nfv1.LifecycleActive)
		f.reconcile(ctx)
		host := f.read(ctx)
		Expect(host).To(beOnline("Unknown", nfv1.ReasonNeverSeen))
		Expect(host.Status.Conditions).To(HaveLen(1))
		Expect(settled(host)).To(Equal(kstatus.InProgressStatus), "its agent has not reported yet")

		f.agentReports(ctx, nfv1.HostPhaseIdle, agentCondition("Ready", "True", nfv1.ReasonUpToDate))
		f.renew(ctx)
		f.reconcile(ctx)
		host = f.read(ctx)
		Expect(host).To(beOnline("True", nfv1.ReasonLeaseRenewed))
		Expect(settled(host)).To(Equal(kstatus.CurrentStatus))
		Expect(host.Status.ObservedGeneration).To(Equal(host.Generation))
	})
})

var _ = Describe("Keys", func() {
	It("warns both Hosts about a key that they share, and refuses neither", func(ctx SpecContext) {
		f := newFixture(ctx, nfv1.LifecycleActive, pinned(GinkgoT(), 7))
		f.reconcile(ctx)
		other := &nfv1.Host{
			ObjectMeta: metav1.ObjectMeta{Namespace: f.host.Namespace, Name: "web-02"},
			Spec:       nfv1.HostSpec{Platform: nfv1.PlatformX8664Linux, Identity: nfv1.HostIdentity{PublicKeys: []string{pinned(GinkgoT(), 7) + " copied"}}},
		}
		Expect(env.Client.Create(ctx, other)).To(Succeed())
		for range 3 {
			_, err := f.reconciler.Reconcile(ctx, ctrl.Request{NamespacedName: client.ObjectKeyFromObject(other)})
			Expect(err).NotTo(HaveOccurred())
		}
		Expect(f.events()).To(ConsistOf(
			And(HavePrefix("Warning SharedKey"), ContainSubstring("SHA256:"), ContainSubstring("/web-01:")),
			And(HavePrefix("Warning SharedKey"), ContainSubstring("SHA256:"), ContainSubstring("/web-02:")),
		))
	})

	It("warns about a key that cannot be read", func(ctx SpecContext) {
		broken := "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBROKEN root@web-01"
		f := newFixture(ctx, nfv1.LifecycleActive, broken)
		f.reconcile(ctx)
		f.reconcile(ctx)
		Expect(f.events()).To(ConsistOf(And(HavePrefix("Warning InvalidKey"), ContainSubstring("key 1"))))
	})
})

var _ = Describe("A Host that is gone", func() {
	It("is forgotten", func(ctx SpecContext) {
		f := newFixture(ctx, nfv1.LifecycleActive, pinned(GinkgoT(), 8))
		f.reconcile(ctx)
		Expect(f.reconciler.sightings).To(HaveLen(1))
		Expect(env.Client.Delete(ctx, f.host)).To(Succeed())
		f.reconcile(ctx)
		Expect(f.reconciler.sightings).To(BeEmpty())
		Expect(f.reconciler.keys.holders).To(BeEmpty())
	})
})
