// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package metrics

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

func conditions(pairs ...string) []metav1.Condition {
	var out []metav1.Condition
	for i := 0; i < len(pairs); i += 3 {
		out = append(out, metav1.Condition{Type: pairs[i], Status: metav1.ConditionStatus(pairs[i+1]), Reason: pairs[i+2]})
	}
	return out
}

func testHosts() []nfv1.Host {
	host := func(lifecycle nfv1.Lifecycle, status nfv1.HostStatus, desired *nfv1.Desired) nfv1.Host {
		return nfv1.Host{
			ObjectMeta: metav1.ObjectMeta{Namespace: "fleet"}, Spec: nfv1.HostSpec{Lifecycle: lifecycle, Desired: desired}, Status: status,
		}
	}
	rollout := &nfv1.ObjectReference{Name: "r", UID: "uid"}
	wanted := &nfv1.Desired{Revision: 3, StorePath: "/new", Intent: nfv1.IntentDeploy, Rollout: rollout}
	attempt := func(outcome nfv1.AttemptOutcome) *nfv1.HostAttempt {
		return &nfv1.HostAttempt{Revision: 3, StorePath: "/new", RolloutUID: "uid", Outcome: outcome}
	}
	running := func(path nfv1.StorePath) *nfv1.SystemGeneration { return &nfv1.SystemGeneration{StorePath: path} }
	stale := attempt(nfv1.AttemptSucceeded)
	stale.RolloutUID = "another"
	online := conditions("Online", "True", "LeaseRenewed")
	return []nfv1.Host{
		host("", nfv1.HostStatus{Conditions: online}, nil),
		host(nfv1.LifecycleActive, nfv1.HostStatus{Conditions: online}, wanted),
		host(nfv1.LifecycleActive, nfv1.HostStatus{Conditions: online, ObservedRevision: 3, Attempt: stale}, wanted),
		host(nfv1.LifecycleActive, nfv1.HostStatus{Conditions: online, Attempt: attempt(nfv1.AttemptSucceeded), Running: running("/new")}, wanted),
		host(nfv1.LifecycleActive, nfv1.HostStatus{Conditions: online, Attempt: attempt(nfv1.AttemptSucceeded), Running: running("/x")}, wanted),
		host(nfv1.LifecycleActive, nfv1.HostStatus{Attempt: attempt(nfv1.AttemptRolledBack), Conditions: conditions(
			"Online", "Unknown", "LeaseExpired", "Healthy", "False", "Unhealthy", "RebootRequired", "True", "X", "Drifted", "False", "X")}, wanted),
		host(nfv1.LifecyclePending, nfv1.HostStatus{Conditions: conditions("Online", "Unknown", "NoAgent")}, nil),
		host(nfv1.LifecycleMaintenance, nfv1.HostStatus{}, nil),
	}
}

func testRollouts(n int) []nfv1.Rollout {
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	out := []nfv1.Rollout{{ObjectMeta: metav1.ObjectMeta{Namespace: "fleet", Name: "over"}, Status: nfv1.RolloutStatus{Phase: nfv1.RolloutPhaseSucceeded}}}
	for i := range n {
		out = append(out, nfv1.Rollout{
			ObjectMeta: metav1.ObjectMeta{Namespace: "fleet", Name: fmt.Sprintf("r%03d", i), CreationTimestamp: metav1.NewTime(begin.Add(time.Duration(-i) * time.Hour))},
			Status: nfv1.RolloutStatus{
				Phase: nfv1.RolloutPhasePaused, Conditions: conditions("Ready", "False", "TooManyFailures"), Hosts: &nfv1.HostCounts{Total: 9, Failed: 2},
			},
		})
	}
	return out
}

// registered is a registry with everything that the manager registers, but the gateway's.
func registered(t *testing.T, all census, err error) *prometheus.Registry {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	c := newCollector(context.Background(), nil, logr.Discard())
	c.list = func() (census, error) { return all, err }
	registry.MustRegister(c)
	if _, err := NewFleet(registry, nil, logr.Discard()); err != nil {
		t.Fatal(err)
	}
	if _, err := NewRecorder(registry); err != nil {
		t.Fatal(err)
	}
	for _, g := range gatewayTable() {
		switch g.Type {
		case Counter:
			v := NewCounterVec(g.Name)
			v.WithLabelValues(g.labelNames()...)
			registry.MustRegister(v)
		case Histogram:
			v := NewHistogramVec(g.Name)
			v.WithLabelValues(g.labelNames()...)
			registry.MustRegister(v)
		case Gauge:
			registry.MustRegister(NewGauge(g.Name))
		}
	}
	return registry
}

func someCensus() census {
	return census{
		hosts: nfv1.HostList{Items: testHosts()}, rollouts: nfv1.RolloutList{Items: testRollouts(2)},
		releases: nfv1.ReleaseList{Items: []nfv1.Release{{ObjectMeta: metav1.ObjectMeta{Namespace: "fleet"}}, {
			ObjectMeta: metav1.ObjectMeta{Namespace: "fleet"}, Status: nfv1.ReleaseStatus{Conditions: conditions("Verified", "False", "Hostile words")},
		}}},
	}
}

func TestWhatIsRegisteredIsWhatTheTableDeclares(t *testing.T) {
	families, err := registered(t, someCensus(), nil).Gather()
	if err != nil {
		t.Fatal(err)
	}
	var got, want []string
	declared := map[string]Definition{}
	for _, d := range Table() {
		want, declared[d.Name] = append(want, d.Name), d
	}
	slices.Sort(want)
	for _, f := range families {
		got = append(got, f.GetName())
		d := declared[f.GetName()]
		for _, m := range f.GetMetric() {
			var names []string
			for _, pair := range m.GetLabel() {
				names = append(names, pair.GetName())
				i := slices.IndexFunc(d.Labels, func(l Label) bool { return l.Name == pair.GetName() })
				if i < 0 || (len(d.Labels[i].Values) > 0 && !slices.Contains(d.Labels[i].Values, pair.GetValue())) {
					t.Errorf("%s has %s=%q, which the table does not declare", d.Name, pair.GetName(), pair.GetValue())
				}
			}
			if len(names) != len(d.Labels) {
				t.Errorf("%s has the labels %v", d.Name, names)
			}
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("registered metrics (-declared +registered):\n%s", diff)
	}
}

func TestNamesFollowConvention(t *testing.T) {
	problems, err := testutil.GatherAndLint(registered(t, someCensus(), nil))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

func TestEveryLabelIsBounded(t *testing.T) {
	for _, d := range Table() {
		if d.Help == "" || d.Scope == "" {
			t.Errorf("%s has no help or no scope", d.Name)
		}
		for _, l := range d.Labels {
			if (len(l.Values) == 0) == (l.Bound == "") {
				t.Errorf("label %s of %s has to have either its values or what bounds them", l.Name, d.Name)
			}
			if l.Name == "host" {
				t.Errorf("%s has a series for each host", d.Name)
			}
		}
	}
}

func values(samples []sample) map[string]float64 {
	out := map[string]float64{}
	for _, s := range samples {
		if s.value != 0 {
			out[fmt.Sprint(s.name, s.labels)] = s.value
		}
	}
	return out
}

func TestCountHosts(t *testing.T) {
	want := map[string]float64{
		"nixfleet_hosts[fleet Active Online]":          5,
		"nixfleet_hosts[fleet Active Offline]":         1,
		"nixfleet_hosts[fleet Pending NeverSeen]":      1,
		"nixfleet_hosts[fleet Maintenance NeverSeen]":  1,
		"nixfleet_host_assignments[fleet None]":        2,
		"nixfleet_host_assignments[fleet Waiting]":     1,
		"nixfleet_host_assignments[fleet Moving]":      1,
		"nixfleet_host_assignments[fleet Running]":     1,
		"nixfleet_host_assignments[fleet Drifted]":     1,
		"nixfleet_host_assignments[fleet Failed]":      1,
		"nixfleet_host_problems[fleet Unhealthy]":      1,
		"nixfleet_host_problems[fleet RebootRequired]": 1,
	}
	if diff := cmp.Diff(want, values(countHosts(testHosts()))); diff != "" {
		t.Errorf("counts (-want +got):\n%s", diff)
	}
	if n := len(countHosts(testHosts())); n != 15+6+5 {
		t.Errorf("%d series, want one for each value of each label", n)
	}
}

func TestOnlyTheOldestUnfinishedRolloutsHaveSeries(t *testing.T) {
	all := testRollouts(Most + 5)
	infos := map[string]bool{}
	for _, s := range tellRollouts(all) {
		if s.name == RolloutInfo {
			infos[s.labels[1]] = true
			if s.labels[2] != "Paused" || s.labels[3] != "TooManyFailures" {
				t.Errorf("info is %v", s.labels)
			}
		}
	}
	if len(infos) != Most || infos["over"] || infos["r004"] || !infos["r005"] {
		t.Errorf("%d rollouts have series: %v", len(infos), infos)
	}
	got := values(tellRollouts(all[1:2]))
	want := map[string]float64{
		"nixfleet_rollout_info[fleet r000 Paused TooManyFailures]": 1,
		"nixfleet_rollout_hosts[fleet r000 Total]":                 9,
		"nixfleet_rollout_hosts[fleet r000 Failed]":                2,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("series (-want +got):\n%s", diff)
	}
}

func TestACacheThatCannotBeReadLeavesTheOtherMetrics(t *testing.T) {
	registry := registered(t, someCensus(), errors.New("stopped"))
	if n, err := testutil.GatherAndCount(registry, Hosts, Rollouts); err != nil || n != 0 {
		t.Errorf("%d series of the fleet, %v", n, err)
	}
	if n, err := testutil.GatherAndCount(registry, Writes); err != nil || n == 0 {
		t.Errorf("%d series of writes, %v", n, err)
	}
}

func TestRecorderCounts(t *testing.T) {
	r, err := NewRecorder(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	r.Wrote(&nfv1.Host{}, nil)
	r.Wrote(&nfv1.Rollout{}, fmt.Errorf("apply: %w", apierrors.NewConflict(schema.GroupResource{}, "a", nil)))
	r.Wrote(&nfv1.Release{}, errors.New("timeout"))
	r.Assigned(nfv1.IntentRevert)
	for series, want := range map[[2]string]float64{{"Host", "Accepted"}: 1, {"Rollout", "Conflict"}: 1, {"Release", "Failed"}: 1, {"Host", "Failed"}: 0} {
		if got := testutil.ToFloat64(r.writes.WithLabelValues(series[:]...)); got != want {
			t.Errorf("writes%v = %v, want %v", series, got, want)
		}
	}
	if got := testutil.ToFloat64(r.assignments.WithLabelValues("Revert")); got != 1 {
		t.Errorf("assignments = %v", got)
	}
	var none *Recorder // counts nothing, and does not panic
	none.Wrote(&nfv1.Host{}, nil)
	none.Assigned(nfv1.IntentDeploy)
	none.Planned(1)
	none.FirstAssigned(1)
	none.Advanced(Progress{Ended: nfv1.RolloutPhaseFailed})
}

func TestProgressIsWhatIsNew(t *testing.T) {
	created := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func(m int) metav1.Time { return metav1.NewTime(created.Add(time.Duration(m) * time.Minute)) }
	open := nfv1.RolloutStatus{Phase: nfv1.RolloutPhaseProgressing, Waves: []nfv1.WaveStatus{{Name: "canary", Size: 1, StartedAt: at(1)}, {Name: "rest"}}}
	done := nfv1.RolloutStatus{Phase: nfv1.RolloutPhaseSucceeded, Waves: []nfv1.WaveStatus{
		{Name: "canary", Size: 1, StartedAt: at(1), FinishedAt: at(4)}, {Name: "rest", StartedAt: at(4), FinishedAt: at(4)},
	}}
	failed := []nfv1.HostFailure{{Host: "a", Reason: "Timeout"}, {Host: "b", Reason: "<script>"}, {Host: "c", Reason: "Timeout"}}
	want := Progress{
		Waves: []time.Duration{3 * time.Minute}, Failures: map[string]int{"Timeout": 2, "Other": 1}, Ended: nfv1.RolloutPhaseSucceeded, Took: 5 * time.Minute,
	}
	if diff := cmp.Diff(want, NewProgress(created, at(5).Time, &open, &done, failed)); diff != "" {
		t.Errorf("progress (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(Progress{Failures: map[string]int{}}, NewProgress(created, at(9).Time, &done, &done, nil)); diff != "" {
		t.Errorf("progress of a status that is stored already (-want +got):\n%s", diff)
	}
}

func TestTheFleetIsServedWhileItsManagerLeads(t *testing.T) {
	registry := prometheus.NewRegistry()
	f, err := NewFleet(registry, nil, logr.Discard())
	if err != nil {
		t.Fatal(err)
	}
	if !f.NeedLeaderElection() {
		t.Error("every replica counts the fleet")
	}
	leading := func() float64 { return testutil.ToFloat64(f.leading) }
	if leading() != 0 {
		t.Error("leads before Start")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.Start(ctx); err != nil || leading() != 0 {
		t.Errorf("Start = %v, leading %v after it", err, leading())
	}
	if err := f.Start(ctx); err != nil { // The registry is free again.
		t.Error(err)
	}
}
