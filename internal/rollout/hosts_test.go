// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package rollout

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

func TestDeadline(t *testing.T) {
	const timeout = 30 * time.Minute
	assigned := time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC)
	at := func(minutes int) time.Time { return assigned.Add(time.Duration(minutes) * time.Minute) }
	tests := map[string]struct {
		online  metav1.ConditionStatus
		since   time.Time
		prepare func(*nfv1.Host)
		outage  time.Time // when the fleet was reachable again
		want    time.Time
	}{
		"online all the time":                    {online: metav1.ConditionTrue, since: at(-60), want: at(30)},
		"back after the assignment":              {online: metav1.ConditionTrue, since: at(20), want: at(50)},
		"went dark after it":                     {online: metav1.ConditionUnknown, since: at(5), want: at(30)},
		"never heard of":                         {want: at(30)},
		"fleet was unreachable":                  {online: metav1.ConditionUnknown, since: at(5), outage: at(120), want: at(150)},
		"fleet was unreachable before":           {online: metav1.ConditionTrue, since: at(-60), outage: at(-30), want: at(30)},
		"assigned for its return and asleep":     {online: metav1.ConditionUnknown, since: at(-60), prepare: func(h *nfv1.Host) { h.Spec.Desired.Wave = "" }},
		"assigned for its return and back":       {online: metav1.ConditionTrue, since: at(90), prepare: func(h *nfv1.Host) { h.Spec.Desired.Wave = "" }, want: at(120)},
		"asleep while it should go back":         {online: metav1.ConditionUnknown, since: at(-60), prepare: func(h *nfv1.Host) { h.Spec.Desired.Intent = nfv1.IntentRevert }},
		"waits for a reboot":                     {online: metav1.ConditionTrue, since: at(-60), prepare: awaitsReboot(1)},
		"waits for a reboot of something before": {online: metav1.ConditionTrue, since: at(-60), prepare: awaitsReboot(0), want: at(30)},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			h := &nfv1.Host{Spec: nfv1.HostSpec{Desired: &nfv1.Desired{Revision: 1, Intent: nfv1.IntentDeploy, Wave: "w", AssignedTime: metav1.NewTime(assigned)}}}
			if tc.online != "" {
				h.Status.Conditions = []metav1.Condition{{Type: nfv1.ConditionOnline, Status: tc.online, LastTransitionTime: metav1.NewTime(tc.since)}}
			}
			if tc.prepare != nil {
				tc.prepare(h)
			}
			if got := deadline(h, timeout, tc.outage); !got.Equal(tc.want) {
				t.Fatalf("times out at %s, want %s", got, tc.want)
			}
		})
	}
}

func awaitsReboot(observed int64) func(*nfv1.Host) {
	return func(h *nfv1.Host) { h.Status.Phase, h.Status.ObservedRevision = nfv1.HostPhaseAwaitingReboot, observed }
}

// TestOrderOfHosts: the same hosts come in another order in another rollout, so that the
// same machine is not the canary of every release, and never is it a sick one.
func TestOrderOfHosts(t *testing.T) {
	w := newWorld(hostNames(6)...)
	w.setHealth("host-000", metav1.ConditionFalse)
	w.setOnline("host-001", false)
	order := func(rollout string, last bool) []string {
		var views []*hostView
		for _, h := range w.hosts {
			views = append(views, newHostView(&nfv1.Rollout{ObjectMeta: metav1.ObjectMeta{UID: "other"}}, nil, h, true, metav1.Time{}))
		}
		sortHosts(types.UID(rollout), views, last)
		var names []string
		for _, v := range views {
			names = append(names, v.host.Name)
		}
		return names
	}
	first := order("a", false)
	if diff := cmp.Diff(first, order("a", false)); diff != "" {
		t.Fatalf("another order the second time:\n%s", diff)
	}
	if first[4] != "host-000" || first[5] != "host-001" {
		t.Fatalf("the sick and the silent come last: %v", first)
	}
	if last := order("a", true); last[0] != "host-000" || last[5] != "host-001" {
		t.Fatalf("in the last wave the sick come first: %v", last)
	}
}

// TestOrderDiffersBetweenRollouts: of ten hosts not always the same is the canary.
func TestOrderDiffersBetweenRollouts(t *testing.T) {
	canaries := map[string]bool{}
	for range 8 {
		w := newWorld(hostNames(10)...)
		w.addRelease("a")
		for range len(canaries) + 1 {
			w.serial() // another uid
		}
		d := w.plan(w.addRollout("r", "a", canary), -1)
		canaries[d.Assignments[0].Host.Name] = true
	}
	if len(canaries) < 3 {
		t.Fatalf("the canaries of eight rollouts are %v", canaries)
	}
}

func TestFleetLoss(t *testing.T) {
	tests := map[string]struct {
		online int
		// when hosts went silent, in seconds
		silent []int
		want   fleetLoss
	}{
		"nobody":                              {online: 5},
		"two laptops closed together":         {online: 1, silent: []int{0, 0}},
		"three of four":                       {online: 1, silent: []int{0, 0, 0}, want: fleetLoss{3, 4}},
		"three of six are not more than half": {online: 3, silent: []int{0, 0, 0}},
		"four of seven":                       {online: 3, silent: []int{0, 60, 120, 180}, want: fleetLoss{4, 7}},
		"one after the other, over hours":     {online: 3, silent: []int{0, 3600, 7200, 10800}},
		"all at once after some long before":  {online: 0, silent: []int{0, 3600, 100000, 100001, 100002}, want: fleetLoss{3, 3}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(hostNames(tc.online + len(tc.silent))...)
			start := w.now
			for i, at := range tc.silent {
				w.now = start.Add(time.Duration(at) * time.Second)
				w.setOnline(hostNames(i + 1)[i], false)
			}
			if got := findFleetLoss(w.hosts, testWindow); got != tc.want {
				t.Fatalf("%+v, want %+v", got, tc.want)
			}
		})
	}
}
