// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

//go:build integration

package rollout

import (
	"context"
	"slices"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

// doomed is the rollout that is deleted, or whose release is.
const doomed = "doomed"

// standstill is a rollout that stands in a phase and cannot leave it by itself.
type standstill struct {
	name  string
	phase nfv1.RolloutPhase
	// spec is what the rollout has that others have not.
	spec func(*nfv1.RolloutSpec)
	// fate is what its hosts do before it is deleted.
	fate func(*nfv1.Host) fate
	// then brings it from where it stops into the phase.
	then func(context.Context, *fleet)
	// offline says that no host is online before it starts.
	offline bool
	// inFlight hosts have to finish before it is gone.
	inFlight int
}

// only the first wave goes anywhere, or all but the way back does.
func inWave(name string, there, elsewhere fate) func(*nfv1.Host) fate {
	return func(h *nfv1.Host) fate {
		if h.Spec.Desired.Wave == name {
			return there
		}
		return elsewhere
	}
}

func patchSpec(state nfv1.RolloutState) func(context.Context, *fleet) {
	return func(ctx context.Context, f *fleet) {
		GinkgoHelper()
		f.setState(ctx, doomed, state)
	}
}

func revertsOnFailure(s *nfv1.RolloutSpec) {
	canaryThenTwo(s)
	s.OnFailure = nfv1.OnFailureRevert
}

// standstills are all phases in which a rollout can be found, and both ways of being
// paused and blocked.
func standstills() []standstill {
	waves := func(change func(first, rest *nfv1.RolloutWave)) func(*nfv1.RolloutSpec) {
		return func(s *nfv1.RolloutSpec) {
			canaryThenTwo(s)
			change(&s.Strategy.Waves[0], &s.Strategy.Waves[1])
		}
	}
	return []standstill{
		{name: "Progressing", phase: nfv1.RolloutPhaseProgressing, fate: always(stays), inFlight: 1},
		{name: "Progressing in the last wave", phase: nfv1.RolloutPhaseProgressing, fate: inWave("canary", succeeds, stays), inFlight: 2},
		{name: "Progressing with a host that has not begun", phase: nfv1.RolloutPhaseProgressing, fate: always(deaf)},
		{name: "Soaking", phase: nfv1.RolloutPhaseSoaking, spec: waves(func(first, _ *nfv1.RolloutWave) { first.SoakSeconds = 3600 })},
		{name: "AwaitingApproval", phase: nfv1.RolloutPhaseAwaitingApproval, spec: waves(func(_, rest *nfv1.RolloutWave) { rest.Approval = nfv1.WaveApprovalRequired })},
		{name: "Blocked by an empty wave", phase: nfv1.RolloutPhaseBlocked, spec: waves(func(first, _ *nfv1.RolloutWave) {
			first.Selector, first.Size = &nfv1.HostSelector{MatchLabels: map[string]nfv1.LabelValue{"typo": "yes"}}, nil
		})},
		{name: "Blocked by offline hosts", phase: nfv1.RolloutPhaseBlocked, offline: true},
		{name: "Blocked because the fleet cannot be reached", phase: nfv1.RolloutPhaseBlocked, fate: inWave("canary", succeeds, stays), inFlight: 2, then: loseFleet},
		{name: "Paused by a person", phase: nfv1.RolloutPhasePaused, fate: always(stays), inFlight: 1, then: patchSpec(nfv1.RolloutStatePaused)},
		{name: "Paused by failures", phase: nfv1.RolloutPhasePaused, fate: always(rollsBack)},
		{name: "Cancelling", phase: nfv1.RolloutPhaseCancelling, fate: always(stays), inFlight: 1, then: patchSpec(nfv1.RolloutStateCancelled)},
		{name: "Reverting", phase: nfv1.RolloutPhaseReverting, spec: revertsOnFailure, inFlight: 2, fate: func(h *nfv1.Host) fate {
			if h.Spec.Desired.Intent == nfv1.IntentRevert {
				return stays
			}
			return inWave("canary", succeeds, rollsBack)(h)
		}},
		{name: "Succeeded", phase: nfv1.RolloutPhaseSucceeded},
		{name: "Failed", phase: nfv1.RolloutPhaseFailed, spec: func(s *nfv1.RolloutSpec) { s.Selector.MatchLabels = map[string]nfv1.LabelValue{"typo": "yes"} }},
		{name: "Reverted", phase: nfv1.RolloutPhaseReverted, spec: revertsOnFailure, fate: inWave("canary", succeeds, rollsBack)},
		{name: "Cancelled", phase: nfv1.RolloutPhaseCancelled, spec: waves(func(first, _ *nfv1.RolloutWave) { first.SoakSeconds = 3600 }), then: patchSpec(nfv1.RolloutStateCancelled)},
	}
}

// loseFleet lets all hosts go silent at once, those in flight included.
func loseFleet(ctx context.Context, f *fleet) {
	GinkgoHelper()
	Eventually(ctx, f.started(ctx)).WithTimeout(soon).Should(HaveLen(2))
	for _, host := range fourHosts {
		f.setOnlineFor(ctx, host, metav1.ConditionUnknown, nfv1.ReasonLeaseExpired)
	}
}

var fourHosts = []string{"a", "b", "c", "d"}

// stand brings a rollout into the phase.
func (s standstill) stand(ctx context.Context, agents *agents) (*fleet, *nfv1.Release, *nfv1.Rollout) {
	GinkgoHelper()
	f := newFleet(ctx, fourHosts...)
	if s.fate == nil {
		s.fate = always(succeeds)
	}
	agents.script(f.namespace, s.fate)
	if s.offline {
		f.setAll(ctx, metav1.ConditionUnknown)
	}
	rel := f.addUnverifiedRelease(ctx, "r1", fourHosts...)
	ro := f.addRollout(ctx, doomed, "r1", func(spec *nfv1.RolloutSpec) {
		canaryThenTwo(spec)
		if s.spec != nil {
			s.spec(spec)
		}
	})
	if s.then != nil {
		Eventually(ctx, func() nfv1.RolloutPhase { return f.phaseOf(ctx, doomed)() }).WithTimeout(soon).Should(BeElementOf(nfv1.RolloutPhaseProgressing, nfv1.RolloutPhaseSoaking))
		s.then(ctx, f)
	}
	Eventually(ctx, f.phaseOf(ctx, doomed)).WithTimeout(soon).Should(Equal(s.phase), s.name)
	Eventually(ctx, f.started(ctx)).WithTimeout(soon).Should(HaveLen(s.inFlight), "%s: hosts in flight", s.name)
	return f, rel, ro
}

// started are the hosts whose agent has begun with an assignment and not ended.
func (f *fleet) started(ctx context.Context) func() []string {
	return func() []string {
		var list nfv1.HostList
		Expect(env.Client.List(ctx, &list, client.InNamespace(f.namespace))).To(Succeed())
		var out []string
		for _, h := range list.Items {
			if d := h.Spec.Desired; d != nil && h.Status.ObservedRevision == d.Revision && h.Status.Phase != nfv1.HostPhaseIdle {
				out = append(out, h.Name)
			}
		}
		return out
	}
}

func (f *fleet) setAll(ctx context.Context, status metav1.ConditionStatus) {
	GinkgoHelper()
	for _, host := range fourHosts {
		f.setOnline(ctx, host, status)
	}
}

func (f *fleet) setState(ctx context.Context, name string, state nfv1.RolloutState) {
	GinkgoHelper()
	ro := f.rollout(ctx, name)
	patch := client.RawPatch("application/merge-patch+json", []byte(`{"spec":{"state":"`+string(state)+`"}}`))
	Expect(env.Client.Patch(ctx, ro, patch)).To(Succeed())
}

func gone(ctx context.Context, o client.Object) func() bool {
	key := client.ObjectKeyFromObject(o)
	return func() bool { return apierrors.IsNotFound(env.Client.Get(ctx, key, o)) }
}

var _ = Describe("deleting in each phase", func() {
	var (
		hands   *agents
		watched *recorder
	)

	BeforeEach(func(ctx SpecContext) {
		hands, watched = startAgents(ctx, 8), startRecorder(ctx)
		startManager(ctx, nil)
	})

	It("a rollout lets its hosts finish, then frees them and its release", func(ctx SpecContext) {
		inParallel(standstills(), func(s standstill) {
			f, rel, ro := s.stand(ctx, hands)
			asked := watched.of(ctx, f.namespace).assignments()
			flying := f.started(ctx)()
			Expect(env.Client.Delete(ctx, ro)).To(Succeed())
			if s.inFlight > 0 {
				f.waitPhase(ctx, doomed, nfv1.RolloutPhaseCancelling)
				Expect(f.rollout(ctx, doomed).Finalizers).To(ContainElement(nfv1.FinalizerHosts), s.name)
				Expect(f.started(ctx)()).To(Equal(flying), "%s: nobody is stopped in mid-attempt", s.name)
				f.setAll(ctx, metav1.ConditionTrue)
				hands.script(f.namespace, always(succeeds))
			}
			Eventually(ctx, gone(ctx, ro)).WithTimeout(soon).Should(BeTrue(), s.name)
			Eventually(ctx, finalizers(ctx, rel)).WithTimeout(soon).Should(BeEmpty(), "%s: the release", s.name)
			for host, all := range watched.of(ctx, f.namespace).assignments() {
				for _, d := range all[len(asked[host]):] {
					Expect(d.Intent).To(Equal(nfv1.IntentNone), "%s: %s was assigned after the deletion", s.name, host)
				}
			}
			for _, host := range flying {
				Expect(f.host(ctx, host).Status.Attempt.Outcome).To(Equal(nfv1.AttemptSucceeded), "%s: %s", s.name, host)
			}
			f.moveAll(ctx, hands, s.name)
			Expect(watched.of(ctx, f.namespace).faults()).To(BeEmpty(), s.name)
		})
	})

	It("a release waits for the rollout that uses it, and says so", func(ctx SpecContext) {
		inParallel(standstills(), func(s standstill) {
			f, rel, ro := s.stand(ctx, hands)
			Expect(env.Client.Delete(ctx, rel)).To(Succeed())
			if !s.phase.Finished() {
				Eventually(ctx, func(g Gomega) {
					g.Expect(env.Client.Get(ctx, f.key("r1"), rel)).To(Succeed())
					inUse := meta.FindStatusCondition(rel.Status.Conditions, nfv1.ConditionInUse)
					g.Expect(inUse).NotTo(BeNil())
					g.Expect(inUse.Message).To(ContainSubstring("deletion waits for unfinished rollouts: " + doomed))
				}).WithTimeout(soon).Should(Succeed(), s.name)
				Expect(rel.Finalizers).To(ContainElement(nfv1.FinalizerInUse), s.name)
				Expect(f.phaseOf(ctx, doomed)()).To(Equal(s.phase), "%s: the rollout goes on as before", s.name)
				f.setState(ctx, doomed, nfv1.RolloutStateCancelled)
				f.setAll(ctx, metav1.ConditionTrue)
				hands.script(f.namespace, always(succeeds))
				f.waitPhase(ctx, doomed, nfv1.RolloutPhaseCancelled)
			}
			Eventually(ctx, gone(ctx, rel)).WithTimeout(soon).Should(BeTrue(), s.name)
			Expect(f.rollout(ctx, doomed).UID).To(Equal(ro.UID))
			Expect(watched.of(ctx, f.namespace).faults()).To(BeEmpty(), s.name)
		})
	})

	It("everything, as with the namespace, hangs on nothing", func(ctx SpecContext) {
		inParallel(standstills(), func(s standstill) {
			f, _, _ := s.stand(ctx, hands)
			kinds := []client.Object{&nfv1.Host{}, &nfv1.Release{}, &nfv1.Rollout{}}
			for i := range kinds { // the order is anyone's guess
				o := kinds[(i+len(s.name))%len(kinds)]
				Expect(env.Client.DeleteAllOf(ctx, o, client.InNamespace(f.namespace))).To(Succeed())
			}
			Eventually(ctx, func() []string {
				var left []string
				for _, o := range objectsIn(ctx, f.namespace) {
					left = append(left, o.GetName())
				}
				return left
			}).WithTimeout(soon).Should(BeEmpty(), s.name)
		})
	})

	It("a rollout and its release before anything was planned", func(ctx SpecContext) {
		inParallel(slices.Repeat([]int{0}, 8), func(int) {
			f := newFleet(ctx, fourHosts...)
			hands.script(f.namespace, always(succeeds))
			rel := f.addUnverifiedRelease(ctx, "r1", fourHosts...)
			ro := f.addRollout(ctx, doomed, "r1", canaryThenTwo)
			Expect(env.Client.Delete(ctx, ro)).To(Succeed())
			Expect(env.Client.Delete(ctx, rel)).To(Succeed())
			Eventually(ctx, gone(ctx, ro)).WithTimeout(soon).Should(BeTrue())
			Eventually(ctx, gone(ctx, rel)).WithTimeout(soon).Should(BeTrue())
			f.moveAll(ctx, hands, "Pending")
		})
	})
})

// moveAll moves every host with another rollout, which shows that nobody holds them.
func (f *fleet) moveAll(ctx context.Context, hands *agents, what string) {
	GinkgoHelper()
	f.setAll(ctx, metav1.ConditionTrue)
	hands.script(f.namespace, always(succeeds))
	f.addUnverifiedRelease(ctx, "r2", fourHosts...)
	next := f.addRollout(ctx, "next", "r2", nil)
	Eventually(ctx, f.phaseOf(ctx, "next")).WithTimeout(soon).Should(Equal(nfv1.RolloutPhaseSucceeded), what)
	Expect(f.assigned(ctx, next)).To(ConsistOf(fourHosts), what)
}
