// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

//go:build integration

package rollout

import (
	"context"
	"fmt"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

var faults = []fault{conflict, throttled, failing, unsent, lost}

// canaryThenTwo moves one host, then the others two at a time.
func canaryThenTwo(s *nfv1.RolloutSpec) {
	s.Strategy = nfv1.RolloutStrategy{Type: nfv1.StrategyStaged, Waves: []nfv1.RolloutWave{
		{Name: "canary", Size: ptr.To(intstr.FromInt32(1))},
		{Name: "rest", MaxUnavailable: ptr.To(intstr.FromInt32(2))},
	}}
}

// outcome is what a rollout has come to, as far as two rollouts over different hosts can
// be compared.
type outcome struct {
	Phase             nfv1.RolloutPhase
	Message, Progress string
	Waves             []nfv1.WaveStatus
	Hosts             nfv1.HostCounts
	Failures          int
	Assignments       map[string]int
	Finalizers        []string
}

func (f *fleet) outcome(ctx context.Context, name string, h history) outcome {
	GinkgoHelper()
	ro := f.rollout(ctx, name)
	out := outcome{
		Phase: ro.Status.Phase, Message: ro.Status.Message, Progress: ro.Status.HostProgress, Hosts: *ro.Status.Hosts,
		Failures: len(ro.Status.Failures), Assignments: map[string]int{}, Finalizers: ro.Finalizers,
	}
	for _, w := range ro.Status.Waves {
		out.Waves = append(out.Waves, nfv1.WaveStatus{
			Name: w.Name, Size: w.Size, Threshold: w.Threshold, MaxUnavailable: w.MaxUnavailable,
			Assigned: w.Assigned, InFlight: w.InFlight, Succeeded: w.Succeeded, Failed: w.Failed, Deferred: w.Deferred, Skipped: w.Skipped,
		})
	}
	for host, all := range h.assignments() {
		out.Assignments[host] = len(all)
		d := f.host(ctx, host)
		Expect(d.Spec.Desired.StorePath).To(Equal(path("r1", host)))
		Expect(d.Status.Running.StorePath).To(Equal(path("r1", host)))
	}
	return out
}

var _ = Describe("when a write fails", func() {
	hosts := []string{"a", "b", "c", "d"}

	It("ends as if it had not, whichever write and however it fails", func(ctx SpecContext) {
		inject, agents, watched := newInjector(), startAgents(ctx, 8), startRecorder(ctx)
		startManager(ctx, func(c *rest.Config, _ *ctrl.Options) { c.Wrap(inject.wrap) })

		play := func(p faultPlan) (*fleet, outcome) {
			f := newFleet(ctx, hosts...)
			inject.plan(f.namespace, p)
			agents.script(f.namespace, always(succeeds))
			rel := f.addUnverifiedRelease(ctx, "r1", hosts...)
			f.addRollout(ctx, "to-r1", "r1", canaryThenTwo)
			f.waitPhase(ctx, "to-r1", nfv1.RolloutPhaseSucceeded)
			Eventually(ctx, finalizers(ctx, f.rollout(ctx, "to-r1"))).WithTimeout(soon).Should(BeEmpty())
			Eventually(ctx, finalizers(ctx, rel)).WithTimeout(soon).Should(BeEmpty(), "of the release")
			h := watched.of(ctx, f.namespace)
			Expect(h.faults()).To(BeEmpty(), "%s", p)
			return f, f.outcome(ctx, "to-r1", h)
		}

		calm, want := play(faultPlan{})
		writes := inject.of(calm.namespace)
		Expect(want.Assignments).To(Equal(map[string]int{"a": 1, "b": 1, "c": 1, "d": 1}))
		AddReportEntry("writes of the controller in a rollout without faults", fmt.Sprintf("%d: %v", len(writes), writes))

		nth := map[string]int{}
		var plans []faultPlan
		for _, what := range writes {
			nth[what]++
			for _, kind := range faults {
				plans = append(plans, faultPlan{fault: kind, what: what, nth: nth[what]})
			}
		}
		inParallel(plans, func(p faultPlan) {
			f, got := play(p)
			Expect(got).To(Equal(want), "after %s", p)
			// How many reports one status answers depends on when they come; the first
			// status and the one after the canary are always there.
			always := p.what != "rollouts/status" || p.nth <= 2
			Expect(inject.hit(f.namespace) || !always).To(BeTrue(), "%s did not happen", p)
		})
	})
})
