// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

//go:build integration

package rollout

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/discovery"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

// scaleHosts is how many hosts a large fleet has: SCALE_HOSTS, or 500.
func scaleHosts() int {
	GinkgoHelper()
	text := os.Getenv("SCALE_HOSTS")
	if text == "" {
		return 500
	}
	n, err := strconv.Atoi(text)
	Expect(err).NotTo(HaveOccurred(), "SCALE_HOSTS")
	return n
}

// requests counts what the API server was asked, by "verb resource/subresource", as it
// says itself.
func requests(ctx context.Context) map[string]int {
	GinkgoHelper()
	server, err := discovery.NewDiscoveryClientForConfig(env.Config)
	Expect(err).NotTo(HaveOccurred())
	text, err := server.RESTClient().Get().AbsPath("/metrics").DoRaw(ctx)
	Expect(err).NotTo(HaveOccurred())
	out := map[string]int{}
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "apiserver_request_total{") || !(label(line, "group") == nfv1.GroupName || label(line, "group") == "events.k8s.io") {
			continue
		}
		_, number, _ := strings.Cut(line, "} ")
		n, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
		Expect(err).NotTo(HaveOccurred(), line)
		what := label(line, "resource")
		if sub := label(line, "subresource"); sub != "" {
			what += "/" + sub
		}
		out[label(line, "verb")+" "+what] += int(n)
	}
	return out
}

func label(line, name string) string {
	m := regexp.MustCompile(`[{,]` + name + `="([^"]*)"`).FindStringSubmatch(line)
	if m == nil {
		return ""
	}
	return m[1]
}

// since is by how much the counts have grown.
func since(before, after map[string]int) map[string]int {
	out := map[string]int{}
	for what, n := range after {
		if d := n - before[what]; d != 0 {
			out[what] = d
		}
	}
	return out
}

// plans counts how often the controller has planned, in this process.
func plans() int {
	GinkgoHelper()
	families, err := metrics.Registry.Gather()
	Expect(err).NotTo(HaveOccurred())
	n := 0
	for _, family := range families {
		if family.GetName() != "controller_runtime_reconcile_total" {
			continue
		}
		for _, m := range family.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetName() == "controller" && l.GetValue() == "rollout" {
					n += int(m.GetCounter().GetValue())
				}
			}
		}
	}
	return n
}

// newLargeFleet is a fleet of n hosts.
func newLargeFleet(ctx context.Context, n int) (*fleet, []string) {
	GinkgoHelper()
	f := newFleet(ctx)
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("host-%05d", i)
	}
	inParallel(names, func(name string) { f.addHost(ctx, name) })
	return f, names
}

// mostPlans is how often a rollout may be planned within d for what hosts report: once
// in each interval, and at both ends.
func mostPlans(d time.Duration) int { return int(d/coalesce) + 2 }

var _ = Describe("in a large fleet", Label("scale"), func() {
	It("writes each host once for the three reports that it gets", func(ctx SpecContext) {
		n := scaleHosts()
		f, names := newLargeFleet(ctx, n)
		hands := startAgents(ctx, 32)
		hands.script(f.namespace, always(succeeds))
		startManager(ctx, nil)
		f.addUnverifiedRelease(ctx, "r1", names...)
		before, begin := requests(ctx), time.Now()
		ro := f.addRollout(ctx, "to-r1", "r1", func(s *nfv1.RolloutSpec) {
			s.Strategy = nfv1.RolloutStrategy{Type: nfv1.StrategyStaged, Waves: []nfv1.RolloutWave{
				{Name: "canary", Size: ptr.To(intstr.FromInt32(5))},
				{Name: "half", Size: ptr.To(intstr.FromString("50%")), MaxUnavailable: ptr.To(intstr.FromString("10%"))},
				{Name: "rest", MaxUnavailable: ptr.To(intstr.FromString("20%"))},
			}}
		})
		f.waitPhase(ctx, "to-r1", nfv1.RolloutPhaseSucceeded)
		Eventually(ctx, finalizers(ctx, ro)).WithTimeout(soon).Should(BeEmpty())
		took, asked := time.Since(begin), since(before, requests(ctx))

		AddReportEntry(fmt.Sprintf("requests of a rollout to %d hosts", n), fmt.Sprintf("in %s: %v", took.Round(time.Millisecond), asked))
		Expect(f.succeeded(ctx)()).To(Equal(n))
		Expect(asked["APPLY hosts"]).To(Equal(n), "one assignment a host")
		Expect(asked["APPLY hosts/status"]).To(Equal(3*n), "three reports a host")
		writes := 0
		for what, m := range asked {
			if verb, resource, _ := strings.Cut(what, " "); strings.HasPrefix(resource, "hosts") && verb != "LIST" && verb != "GET" && verb != "WATCH" {
				writes += m
			}
		}
		Expect(writes).To(BeNumerically("<=", 4*n), "writes to hosts of any kind: %v", asked)
		Expect(asked["GET hosts"]+asked["LIST hosts"]).To(BeNumerically("<=", 1), "the cache answers; what was asked once is the spec's: %v", asked)
		Expect(asked["APPLY rollouts/status"]).To(BeNumerically("<=", mostPlans(took)), "a status answers all reports of an interval")
		Expect(asked["APPLY rollouts"]).To(Equal(2), "the finalizer")
		Expect(asked["POST events"]+asked["PATCH events"]).To(BeNumerically("<", 20), "no event for each host")
	})

	It("plans once for all that is reported at the same time", func(ctx SpecContext) {
		const n = 300
		f, names := newLargeFleet(ctx, n)
		hands := startAgents(ctx, 32)
		hands.script(f.namespace, always(stays))
		startManager(ctx, nil)
		f.addUnverifiedRelease(ctx, "r1", names...)
		f.addRollout(ctx, "to-r1", "r1", nil)
		Eventually(ctx, f.started(ctx)).WithTimeout(soon).Should(HaveLen(n))

		before, reports, begin := plans(), hands.reports.Load(), time.Now()
		hands.script(f.namespace, always(succeeds))
		f.waitPhase(ctx, "to-r1", nfv1.RolloutPhaseSucceeded)
		took, planned, reported := time.Since(begin), plans()-before, hands.reports.Load()-reports
		AddReportEntry("plans", fmt.Sprintf("%d for %d reports in %s", planned, reported, took.Round(time.Millisecond)))
		Expect(reported).To(BeEquivalentTo(2 * n))
		Expect(planned).To(BeNumerically("<=", mostPlans(took)+1), "and the plan after the Succeeded status")
	})
})
