// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

//go:build integration

package rollout

import (
	"context"
	"fmt"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	testingclock "k8s.io/utils/clock/testing"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/ssa"
	"github.com/nixfleet/nixfleet/internal/testenv"
)

var (
	env *testenv.Env
	// asManager has the rights of the manager and no more.
	asManager client.Client
)

func TestRolloutController(t *testing.T) {
	RegisterFailHandler(Fail)
	RunSpecs(t, "Rollout controller")
}

var _ = BeforeSuite(func() {
	SetDefaultEventuallyPollingInterval(poll)
	env = testenv.Start(GinkgoTB())
	var err error
	asManager, err = env.ClientFor(env.ManagerConfig())
	Expect(err).NotTo(HaveOccurred())
})

// fleet is a namespace with hosts, a release and a controller whose steps the test takes.
type fleet struct {
	namespace  string
	clock      *testingclock.FakeClock
	events     *events.FakeRecorder
	reconciler *Reconciler
}

func newFleet(ctx context.Context, hosts ...string) *fleet {
	GinkgoHelper()
	f := &fleet{
		namespace: use(env.Namespace(ctx)),
		clock:     testingclock.NewFakeClock(time.Now().Truncate(time.Second)),
		events:    events.NewFakeRecorder(100),
	}
	f.reconciler = f.newReconciler(asManager)
	for _, name := range hosts {
		f.addHost(ctx, name)
	}
	return f
}

func (f *fleet) newReconciler(c client.Client) *Reconciler {
	return &Reconciler{Client: c, Live: c, Clock: f.clock, Recorder: f.events, OfflineWindow: 3 * time.Minute, Writers: 4}
}

func path(release, host string) nfv1.StorePath {
	return nfv1.StorePath(fmt.Sprintf("/nix/store/%032d-nixos-system-%s-%s", 0, host, release))
}

func (f *fleet) key(name string) client.ObjectKey {
	return client.ObjectKey{Namespace: f.namespace, Name: name}
}

func (f *fleet) addHost(ctx context.Context, name string) {
	GinkgoHelper()
	h := &nfv1.Host{ObjectMeta: metav1.ObjectMeta{Namespace: f.namespace, Name: name}, Spec: nfv1.HostSpec{Platform: nfv1.PlatformX8664Linux}}
	Expect(env.Client.Create(ctx, h)).To(Succeed())
	f.setOnline(ctx, name, metav1.ConditionTrue)
	f.report(ctx, name, func(*nfv1.HostStatus, *nfv1.Host) {})
}

func (f *fleet) setOnline(ctx context.Context, name string, status metav1.ConditionStatus) {
	GinkgoHelper()
	f.setOnlineFor(ctx, name, status, nfv1.ReasonLeaseRenewed)
}

// setOnlineFor writes the condition Online as the host controller does.
func (f *fleet) setOnlineFor(ctx context.Context, name string, status metav1.ConditionStatus, reason string) {
	GinkgoHelper()
	online := map[string]any{"conditions": []any{map[string]any{
		"type": nfv1.ConditionOnline, "status": string(status), "reason": reason, "message": "",
		"lastTransitionTime": f.clock.Now().UTC().Format(time.RFC3339),
	}}}
	Expect(ssa.Status(ctx, env.Client, nfv1.FieldOwnerHost, f.host(ctx, name), ssa.SameObject, online)).To(Succeed())
}

// report writes a status as the agent of the host does.
func (f *fleet) report(ctx context.Context, name string, mutate func(*nfv1.HostStatus, *nfv1.Host)) {
	GinkgoHelper()
	h := f.host(ctx, name)
	s := reportOf(h, nfv1.HostPhaseIdle, "")
	s.ObservedRevision = h.Status.ObservedRevision // what it takes up, the test says
	mutate(s, h)
	summarise(s, h)
	Expect(ssa.Status(ctx, env.Client, nfv1.FieldOwnerAgent, h, ssa.SameObject, s)).To(Succeed())
}

// finish reports an outcome for the host's current assignment.
func (f *fleet) finish(ctx context.Context, name string, outcome nfv1.AttemptOutcome) {
	GinkgoHelper()
	h := f.host(ctx, name)
	Expect(ssa.Status(ctx, env.Client, nfv1.FieldOwnerAgent, h, ssa.SameObject, reportOf(h, nfv1.HostPhaseIdle, outcome))).To(Succeed())
}

func releaseFor(namespace, name string, hosts ...string) *nfv1.Release {
	rel := &nfv1.Release{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec:       nfv1.ReleaseSpec{Caches: []nfv1.BinaryCache{{URL: "https://cache.example.org"}}, Hosts: map[string]nfv1.StorePath{}},
	}
	for _, h := range hosts {
		rel.Spec.Hosts[h] = path(name, h)
	}
	return rel
}

// addRelease adds a release for the hosts that is verified.
func (f *fleet) addRelease(ctx context.Context, name string, hosts ...string) *nfv1.Release {
	GinkgoHelper()
	rel := releaseFor(f.namespace, name, hosts...)
	Expect(env.Client.Create(ctx, rel)).To(Succeed())
	status := nfv1.ReleaseStatus{
		ObservedGeneration: rel.Generation,
		VerifiedAt:         metav1.NewTime(f.clock.Now().Add(24 * time.Hour)), // for as long as the test lasts
	}
	for _, kind := range []string{nfv1.ConditionVerified, nfv1.ConditionReady} {
		meta.SetStatusCondition(&status.Conditions, metav1.Condition{
			Type: kind, Status: metav1.ConditionTrue, Reason: nfv1.ReasonVerified, ObservedGeneration: rel.Generation,
		})
	}
	Expect(ssa.Status(ctx, env.Client, nfv1.FieldOwnerRelease, rel, ssa.SameObject, &status)).To(Succeed())
	return rel
}

func (f *fleet) addRollout(ctx context.Context, name, release string, mutate func(*nfv1.RolloutSpec)) *nfv1.Rollout {
	GinkgoHelper()
	ro := &nfv1.Rollout{
		ObjectMeta: metav1.ObjectMeta{Namespace: f.namespace, Name: name},
		Spec:       nfv1.RolloutSpec{Release: release, Selector: &nfv1.HostSelector{}, Strategy: nfv1.RolloutStrategy{Type: nfv1.StrategyAllAtOnce}},
	}
	if mutate != nil {
		mutate(&ro.Spec)
	}
	Expect(env.Client.Create(ctx, ro)).To(Succeed())
	return ro
}

func (f *fleet) host(ctx context.Context, name string) *nfv1.Host {
	GinkgoHelper()
	var h nfv1.Host
	Expect(env.Client.Get(ctx, f.key(name), &h)).To(Succeed())
	return &h
}

func (f *fleet) rollout(ctx context.Context, name string) *nfv1.Rollout {
	GinkgoHelper()
	var ro nfv1.Rollout
	Expect(env.Client.Get(ctx, f.key(name), &ro)).To(Succeed())
	return &ro
}

// reconcile takes one step and looks at what every stored status has to obey.
func (f *fleet) reconcile(ctx context.Context, name string) ctrl.Result {
	GinkgoHelper()
	result, err := f.reconciler.Reconcile(ctx, ctrl.Request{NamespacedName: f.key(name)})
	Expect(err).NotTo(HaveOccurred())
	var ro nfv1.Rollout
	if env.Client.Get(ctx, f.key(name), &ro) == nil {
		Expect(ro.Status.ObservedGeneration).To(Equal(ro.Generation), "observedGeneration")
		Expect(kstatusFaults(&ro)).To(BeEmpty())
	}
	return result
}
