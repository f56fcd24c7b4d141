// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package metrics

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

// Fleet serves what can be counted in the cache, for as long as its manager leads. It is
// a Runnable of that manager.
type Fleet struct {
	registry prometheus.Registerer
	reader   client.Reader
	log      logr.Logger
	leading  prometheus.Gauge
}

// NewFleet registers the gauge of who leads. reader is the manager's cache.
func NewFleet(registry prometheus.Registerer, reader client.Reader, log logr.Logger) (*Fleet, error) {
	f := &Fleet{registry: registry, reader: reader, log: log, leading: NewGauge(ManagerLeading)}
	if err := Register(registry, &f.leading); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return f, nil
}

// NeedLeaderElection is true: a fleet that two replicas count is counted twice.
func (f *Fleet) NeedLeaderElection() bool { return true }

// Start serves the counts until ctx ends.
func (f *Fleet) Start(ctx context.Context) error {
	c := newCollector(ctx, f.reader, f.log)
	if err := f.registry.Register(c); err != nil {
		return fmt.Errorf("register the metrics of the fleet, which one manager of a process can serve at a time: %w", err)
	}
	f.leading.Set(1)
	<-ctx.Done()
	f.leading.Set(0)
	f.registry.Unregister(c)
	return nil
}

// collector counts the objects in the cache each time it is asked. It remembers nothing,
// so the series of what is gone are gone.
type collector struct {
	list  func() (census, error)
	log   logr.Logger
	descs map[string]*prometheus.Desc
}

// census is all that there is to count. The objects are those of the cache.
type census struct {
	hosts    nfv1.HostList
	releases nfv1.ReleaseList
	rollouts nfv1.RolloutList
}

func newCollector(ctx context.Context, reader client.Reader, log logr.Logger) *collector {
	c := &collector{log: log, descs: map[string]*prometheus.Desc{}, list: func() (census, error) {
		var all census
		var errs []error
		for _, list := range []client.ObjectList{&all.hosts, &all.releases, &all.rollouts} {
			errs = append(errs, reader.List(ctx, list, client.UnsafeDisableDeepCopy))
		}
		return all, errors.Join(errs...)
	}}
	for _, name := range []string{Hosts, HostAssignments, HostProblems, Releases, Rollouts, RolloutInfo, RolloutHosts} {
		c.descs[name] = newDesc(name)
	}
	return c
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		out <- d
	}
}

// Collect implements prometheus.Collector. If the cache cannot be read, which is so when
// the manager stops, there are no counts rather than wrong ones; the other metrics stay.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	all, err := c.list()
	if err != nil {
		c.log.Error(err, "Count the fleet for metrics")
		return
	}
	rollouts := all.rollouts.Items
	for _, s := range slices.Concat(countHosts(all.hosts.Items), countReleases(all.releases.Items), countRollouts(rollouts), tellRollouts(rollouts)) {
		out <- prometheus.MustNewConstMetric(c.descs[s.name], prometheus.GaugeValue, s.value, s.labels...)
	}
}

// sample is a value of a series.
type sample struct {
	name   string
	labels []string
	value  float64
}

// tallies counts objects by namespace and one more label. A namespace has a series for
// every value of the label as soon as it has one, so that alerts see 0 and not nothing.
type tallies struct {
	name   string
	values []string
	counts map[string]map[string]int
}

func newTallies(name string, values []string) *tallies {
	return &tallies{name: name, values: values, counts: map[string]map[string]int{}}
}

func (t *tallies) in(namespace string) map[string]int {
	if t.counts[namespace] == nil {
		t.counts[namespace] = map[string]int{}
	}
	return t.counts[namespace]
}

func (t *tallies) samples() []sample {
	var out []sample
	for namespace, counts := range t.counts {
		for _, v := range t.values {
			out = append(out, sample{t.name, []string{namespace, v}, float64(counts[v])})
		}
	}
	return out
}

func countHosts(hosts []nfv1.Host) []sample {
	seen := map[[3]string]int{}
	assigned, troubled := newTallies(HostAssignments, assignmentStates()), newTallies(HostProblems, problems())
	for i := range hosts {
		h := &hosts[i]
		for _, lifecycle := range lifecycles() {
			for _, connection := range connections() {
				seen[[3]string{h.Namespace, lifecycle, connection}] += 0
			}
		}
		lifecycle := cmp.Or(h.Spec.Lifecycle, nfv1.LifecycleActive)
		seen[[3]string{h.Namespace, string(lifecycle), connection(h)}]++
		counts, trouble := assigned.in(h.Namespace), troubled.in(h.Namespace)
		if lifecycle == nfv1.LifecyclePending || lifecycle == nfv1.LifecycleDecommissioned {
			continue
		}
		counts[assignment(h)]++
		for _, p := range problemsOf(h) {
			trouble[p]++
		}
	}
	out := append(assigned.samples(), troubled.samples()...)
	for key, n := range seen {
		out = append(out, sample{Hosts, key[:], float64(n)})
	}
	return out
}

func connection(h *nfv1.Host) string {
	c := meta.FindStatusCondition(h.Status.Conditions, nfv1.ConditionOnline)
	switch {
	case c == nil, c.Reason == nfv1.ReasonNeverSeen, c.Reason == nfv1.ReasonNoAgent:
		return connectionNeverSeen
	case c.Status == "True":
		return connectionOnline
	default:
		return connectionOffline
	}
}

// assignment is what became of what a host was asked to run. Like the planner, it takes
// an outcome for that of the assignment only if all that identifies it matches.
func assignment(h *nfv1.Host) string {
	d, a := h.Spec.Desired, h.Status.Attempt
	if d == nil || d.Intent == nfv1.IntentNone || d.StorePath == "" {
		return assignmentNone
	}
	answers := a != nil && a.Revision == d.Revision && a.StorePath == d.StorePath && (d.Rollout == nil || a.RolloutUID == d.Rollout.UID)
	switch {
	case !answers && h.Status.ObservedRevision < d.Revision:
		return assignmentWaiting
	case !answers || a.Outcome == "":
		return assignmentMoving
	case a.Outcome != nfv1.AttemptSucceeded:
		return assignmentFailed
	case h.Status.Running == nil || h.Status.Running.StorePath != d.StorePath:
		return assignmentDrifted
	default:
		return assignmentRunning
	}
}

func problemsOf(h *nfv1.Host) []string {
	var out []string
	if meta.IsStatusConditionFalse(h.Status.Conditions, nfv1.ConditionHealthy) {
		out = append(out, problemUnhealthy)
	}
	for _, p := range problems() {
		if p != problemUnhealthy && meta.IsStatusConditionTrue(h.Status.Conditions, p) {
			out = append(out, p)
		}
	}
	return out
}

func countReleases(releases []nfv1.Release) []sample {
	t := newTallies(Releases, verifications())
	for i := range releases {
		reason := nfv1.ReasonVerifying
		if c := meta.FindStatusCondition(releases[i].Status.Conditions, nfv1.ConditionVerified); c != nil {
			reason = c.Reason
		}
		t.in(releases[i].Namespace)[oneOf(reason, verifications())]++
	}
	return t.samples()
}

func countRollouts(rollouts []nfv1.Rollout) []sample {
	t := newTallies(Rollouts, phases())
	for i := range rollouts {
		t.in(rollouts[i].Namespace)[phase(&rollouts[i])]++
	}
	return t.samples()
}

func phase(ro *nfv1.Rollout) string {
	return string(cmp.Or(ro.Status.Phase, nfv1.RolloutPhasePending))
}
