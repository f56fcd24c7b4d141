// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

//go:build integration

package release

import (
	"context"
	"fmt"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
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
	"github.com/nixfleet/nixfleet/internal/nix"
	"github.com/nixfleet/nixfleet/internal/nix/binarycache"
	"github.com/nixfleet/nixfleet/internal/ssa"
)

// scriptedVerifier answers with what the spec put in.
type scriptedVerifier struct{ reports chan binarycache.Report }

func (v scriptedVerifier) Closure(ctx context.Context, _ []nix.StorePath, _ []string, _ nix.PublicKeys) (binarycache.Report, error) {
	select {
	case r := <-v.reports:
		return r, nil
	case <-ctx.Done():
		return binarycache.Report{}, context.Cause(ctx)
	}
}

// fixture is one Release and a controller of its own, whose clock the spec moves.
type fixture struct {
	clock      *testingclock.FakeClock
	recorder   *events.FakeRecorder
	verifier   scriptedVerifier
	reconciler *Reconciler
	release    *nfv1.Release
}

func newFixture(ctx context.Context, change func(*nfv1.ReleaseSpec)) *fixture {
	GinkgoHelper()
	spec := newRelease().Spec
	if change != nil {
		change(&spec)
	}
	f := &fixture{
		clock:    testingclock.NewFakeClock(time.Now().Truncate(time.Second)),
		verifier: scriptedVerifier{reports: make(chan binarycache.Report, 1)},
		release:  &nfv1.Release{ObjectMeta: metav1.ObjectMeta{Namespace: env.Namespace(ctx), Name: "r1"}, Spec: spec},
	}
	Expect(env.Client.Create(ctx, f.release)).To(Succeed())
	f.newLeader()
	return f
}

// newLeader is a controller that has seen nothing yet.
func (f *fixture) newLeader() {
	if f.reconciler != nil {
		f.reconciler.Checks.Stop()
	}
	f.recorder = events.NewFakeRecorder(100)
	checks := NewChecks(f.verifier, 1, time.Hour)
	DeferCleanup(checks.Stop)
	f.reconciler = &Reconciler{
		Client: asManager, Live: asManager, Clock: f.clock, Recorder: f.recorder, Checks: checks, Pace: DefaultPace(),
	}
}

func (f *fixture) reconcile(ctx context.Context) ctrl.Result {
	GinkgoHelper()
	result, err := f.reconciler.Reconcile(ctx, ctrl.Request{NamespacedName: client.ObjectKeyFromObject(f.release)})
	Expect(err).NotTo(HaveOccurred())
	return result
}

// finish lets the running check end with a report and has it recorded.
func (f *fixture) finish(ctx context.Context, r binarycache.Report) ctrl.Result {
	GinkgoHelper()
	f.verifier.reports <- r
	Eventually(ctx, f.reconciler.Checks.Done()).Should(Receive())
	return f.reconcile(ctx)
}

func (f *fixture) read(ctx context.Context) *nfv1.Release {
	GinkgoHelper()
	Expect(env.Client.Get(ctx, client.ObjectKeyFromObject(f.release), f.release)).To(Succeed())
	return f.release
}

func (f *fixture) verified(ctx context.Context) string {
	GinkgoHelper()
	c := meta.FindStatusCondition(f.read(ctx).Status.Conditions, nfv1.ConditionVerified)
	Expect(c).NotTo(BeNil())
	return string(c.Status) + " " + c.Reason
}

func (f *fixture) kstatus(ctx context.Context) kstatus.Status {
	GinkgoHelper()
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(f.read(ctx))
	Expect(err).NotTo(HaveOccurred())
	result, err := kstatus.Compute(&unstructured.Unstructured{Object: content})
	Expect(err).NotTo(HaveOccurred())
	return result.Status
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

// rollout makes a rollout to the release, with a status as its controller would write it.
func (f *fixture) rollout(ctx context.Context, name string, phase nfv1.RolloutPhase, pinned types.UID) *nfv1.Rollout {
	GinkgoHelper()
	ro := &nfv1.Rollout{
		ObjectMeta: metav1.ObjectMeta{Namespace: f.release.Namespace, Name: name},
		Spec:       nfv1.RolloutSpec{Release: f.release.Name, Selector: &nfv1.HostSelector{}},
	}
	Expect(env.Client.Create(ctx, ro)).To(Succeed())
	f.setRollout(ctx, ro, phase, pinned)
	return ro
}

func (f *fixture) setRollout(ctx context.Context, ro *nfv1.Rollout, phase nfv1.RolloutPhase, pinned types.UID) {
	GinkgoHelper()
	status := nfv1.RolloutStatus{Phase: phase, ReleaseUID: pinned, ObservedGeneration: 1}
	Expect(ssa.Status(ctx, asManager, nfv1.FieldOwnerRollout, ro, ssa.SameObject, &status)).To(Succeed())
}

// claim is what the rollout controller does before its first assignment.
func (f *fixture) claim(ctx context.Context) {
	GinkgoHelper()
	Expect(ssa.Finalizers(ctx, asManager, nfv1.FieldOwnerRollout, f.read(ctx).DeepCopy(), ssa.SameObject, nfv1.FinalizerInUse)).To(Succeed())
}

var _ = Describe("The verdict", func() {
	It("is not known until the check has ended, and is told once", func(ctx SpecContext) {
		f := newFixture(ctx, nil)
		Expect(f.kstatus(ctx)).To(Equal(kstatus.InProgressStatus))
		Expect(f.reconcile(ctx).RequeueAfter).To(BeZero())
		Expect(f.verified(ctx)).To(Equal("Unknown Verifying"))
		Expect(f.kstatus(ctx)).To(Equal(kstatus.InProgressStatus))

		Expect(f.finish(ctx, goodReport()).RequeueAfter).To(BeZero())
		Expect(f.verified(ctx)).To(Equal("True Verified"))
		Expect(f.kstatus(ctx)).To(Equal(kstatus.CurrentStatus))
		Expect(f.release.Status.Closures).To(HaveValue(Equal(nfv1.ClosureCounts{Hosts: 3, Toplevels: 2, Verified: 2, Paths: 7})))
		Expect(f.release.Status.VerifiedAt.Time).To(BeTemporally("==", f.clock.Now()))
		Expect(f.events()).To(HaveExactElements(
			ContainSubstring("Normal Verifying checking the closures of 3 hosts"),
			ContainSubstring("Normal Verified 2 systems with 7 store paths"),
		))

		version := f.release.ResourceVersion
		f.clock.Step(time.Hour)
		f.reconcile(ctx)
		Expect(f.read(ctx).ResourceVersion).To(Equal(version), "nothing changed, so nothing is written")
		Expect(f.events()).To(BeEmpty())
	})

	It("fits the schema with the longest offenders that a check can find", func(ctx SpecContext) {
		f := newFixture(ctx, func(s *nfv1.ReleaseSpec) { s.Hosts["Not a host's name"] = systemA })
		f.reconcile(ctx)
		bad := badReport(binarycache.UntrustedSignature)
		bad.Offenders = nil
		for i := range binarycache.MaxOffenders {
			path := nix.StorePath(fmt.Sprintf("/nix/store/hic7pqzjfm72hcxd5s4x77raa07v8vvb-%0211d", i))
			bad.Offenders = append(bad.Offenders, binarycache.Offender{
				Path: path, Verdict: binarycache.UntrustedSignature, Toplevel: systemA, Message: strings.Repeat("ü", 2000),
			})
		}
		Expect(f.finish(ctx, bad).RequeueAfter).To(BeNumerically(">", 0))
		Expect(f.verified(ctx)).To(Equal("False UntrustedSignature"))
		Expect(f.kstatus(ctx)).To(Equal(kstatus.FailedStatus))
		Expect(f.release.Status.Offenders).To(HaveLen(binarycache.MaxOffenders))
		Expect(f.release.Status.Offenders[0].Host).To(BeEquivalentTo("web-01"))
	})

	It("is taken anew after an outage, and survives a change of leader", func(ctx SpecContext) {
		f := newFixture(ctx, nil)
		f.reconcile(ctx)
		after := f.finish(ctx, badReport(binarycache.CacheUnreachable)).RequeueAfter
		Expect(after).To(BeNumerically(">", 0))
		Expect(f.verified(ctx)).To(Equal("Unknown CacheUnreachable"))
		Expect(f.kstatus(ctx)).To(Equal(kstatus.InProgressStatus))

		f.clock.Step(after)
		f.reconcile(ctx)
		Expect(f.verified(ctx)).To(Equal("Unknown CacheUnreachable"), "the reason stays while it is tried again")
		f.finish(ctx, goodReport())
		Expect(f.verified(ctx)).To(Equal("True Verified"))

		f.newLeader()
		f.clock.Step(time.Hour)
		f.reconcile(ctx)
		Expect(f.verified(ctx)).To(Equal("True Verified"))
		Expect(f.events()).To(BeEmpty())
	})

	It("is taken anew when a rollout comes to its next wave", func(ctx SpecContext) {
		f := newFixture(ctx, nil)
		f.reconcile(ctx)
		f.finish(ctx, goodReport())
		ro := f.rollout(ctx, "a", nfv1.RolloutPhaseProgressing, f.release.UID)
		f.reconcile(ctx)
		Expect(f.reconciler.Checks.state(client.ObjectKeyFromObject(f.release), f.release.UID).running).To(BeFalse())

		f.clock.Step(time.Hour)
		status := nfv1.RolloutStatus{
			Phase: nfv1.RolloutPhaseProgressing, ReleaseUID: f.release.UID, ObservedGeneration: 1,
			Waves: []nfv1.WaveStatus{{Name: "all", Size: 1, StartedAt: metav1.NewTime(f.clock.Now())}},
		}
		Expect(ssa.Status(ctx, asManager, nfv1.FieldOwnerRollout, ro, ssa.SameObject, &status)).To(Succeed())
		f.reconcile(ctx)
		Expect(f.verified(ctx)).To(Equal("True Verified"), "the verdict stands until there is another one")
		f.finish(ctx, badReport(binarycache.MissingPaths))
		Expect(f.verified(ctx)).To(Equal("False MissingPaths"))
		Expect(f.events()).To(ContainElement(ContainSubstring("Warning MissingPaths")))
	})

	It("is not asked for with verification Skip", func(ctx SpecContext) {
		f := newFixture(ctx, func(s *nfv1.ReleaseSpec) { s.Verification = nfv1.VerificationSkip })
		f.reconcile(ctx)
		Expect(f.verified(ctx)).To(Equal("Unknown VerificationSkipped"))
		Expect(f.kstatus(ctx)).To(Equal(kstatus.CurrentStatus))
		Expect(f.reconciler.Checks.state(client.ObjectKeyFromObject(f.release), f.release.UID).running).To(BeFalse())
	})
})

var _ = Describe("A release in use", func() {
	It("names its rollouts, outlives its deletion and goes with the last of them", func(ctx SpecContext) {
		f := newFixture(ctx, nil)
		f.reconcile(ctx)
		f.finish(ctx, goodReport())
		first := f.rollout(ctx, "first", nfv1.RolloutPhaseProgressing, f.release.UID)
		second := f.rollout(ctx, "second", nfv1.RolloutPhasePaused, f.release.UID)
		f.rollout(ctx, "done", nfv1.RolloutPhaseSucceeded, f.release.UID)
		f.rollout(ctx, "of-another", nfv1.RolloutPhaseProgressing, "another-uid")
		f.claim(ctx)
		f.reconcile(ctx)
		Expect(message(f.read(ctx).Status, nfv1.ConditionInUse)).To(Equal("unfinished rollouts: first, second"))
		Expect(f.release.Finalizers).To(ConsistOf(nfv1.FinalizerInUse))

		Expect(env.Client.Delete(ctx, f.release)).To(Succeed())
		f.reconcile(ctx)
		Expect(message(f.read(ctx).Status, nfv1.ConditionInUse)).To(ContainSubstring("deletion waits for unfinished rollouts: first, second"))

		f.setRollout(ctx, first, nfv1.RolloutPhaseSucceeded, f.release.UID)
		f.reconcile(ctx)
		Expect(message(f.read(ctx).Status, nfv1.ConditionInUse)).To(HaveSuffix("rollouts: second; cancel them, or wait"))

		Expect(env.Client.Delete(ctx, second)).To(Succeed())
		f.reconcile(ctx)
		err := env.Client.Get(ctx, client.ObjectKeyFromObject(f.release), f.release)
		Expect(apierrors.IsNotFound(err)).To(BeTrue(), "got %v", err)
		f.reconcile(ctx)
	})

	It("keeps the finalizer for a rollout that has not pinned it yet", func(ctx SpecContext) {
		f := newFixture(ctx, nil)
		f.rollout(ctx, "new", nfv1.RolloutPhasePending, "")
		f.claim(ctx)
		f.reconcile(ctx)
		Expect(f.read(ctx).Finalizers).To(ConsistOf(nfv1.FinalizerInUse))
		Expect(message(f.release.Status, nfv1.ConditionInUse)).To(Equal("no unfinished rollout uses the release"))
	})

	It("keeps the finalizer for a rollout that the cache does not know yet", func(ctx SpecContext) {
		f := newFixture(ctx, nil)
		f.rollout(ctx, "new", nfv1.RolloutPhaseProgressing, f.release.UID)
		f.claim(ctx)
		f.reconciler.Client = blindClient{asManager}
		f.reconcile(ctx)
		Expect(f.read(ctx).Finalizers).To(ConsistOf(nfv1.FinalizerInUse))
	})

	It("loses the finalizer when its rollouts are finished, and only that one", func(ctx SpecContext) {
		f := newFixture(ctx, nil)
		ro := f.rollout(ctx, "a", nfv1.RolloutPhaseProgressing, f.release.UID)
		f.claim(ctx)
		Expect(ssa.Finalizers(ctx, env.Client, "somebody", f.read(ctx).DeepCopy(), ssa.SameObject, "example.org/theirs")).To(Succeed())
		f.reconcile(ctx)
		f.setRollout(ctx, ro, nfv1.RolloutPhaseFailed, f.release.UID)
		f.reconcile(ctx)
		Expect(f.read(ctx).Finalizers).To(ConsistOf("example.org/theirs"))
		Expect(message(f.release.Status, nfv1.ConditionInUse)).To(Equal("no unfinished rollout uses the release"))
	})
})

// blindClient has a cache without rollouts.
type blindClient struct{ client.Client }

func (c blindClient) List(ctx context.Context, list client.ObjectList, opts ...client.ListOption) error {
	if _, rollouts := list.(*nfv1.RolloutList); rollouts {
		return nil
	}
	return c.Client.List(ctx, list, opts...)
}
