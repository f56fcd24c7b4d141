// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package rollout

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

// The rules that random histories come across too seldom to rely on, one by one.

func names(as []Assignment, intent nfv1.Intent) []string {
	out := []string{}
	for _, a := range as {
		if a.Desired.Intent == intent {
			out = append(out, a.Host.Name)
		}
	}
	return out
}

// failing is a rollout of a second release whose first wave of all hosts but one has
// succeeded, and whose last host has failed, so that everybody goes back.
func failing(w *world, capacity int32) *nfv1.Rollout {
	w.addRelease("a")
	w.addRollout("before", "a", nil)
	w.settle()
	w.advance(time.Hour)
	w.addRelease("b")
	ro := w.addRollout("r", "b", func(s *nfv1.RolloutSpec) {
		staged(
			nfv1.RolloutWave{Name: "most", Size: ptrTo(intstr.FromInt32(int32(len(w.hosts)) - 1)), MaxUnavailable: ptrTo(intstr.FromInt32(capacity))},
			nfv1.RolloutWave{Name: "rest"},
		)(s)
		s.OnFailure = nfv1.OnFailureRevert
	})
	for ro.Status.Phase != nfv1.RolloutPhaseReverting {
		d := w.plan(ro, -1)
		for _, a := range d.Assignments {
			if a.Desired.Wave == "rest" && a.Desired.Intent == nfv1.IntentDeploy {
				w.broken[string(a.Desired.StorePath)] = true
			}
			if a.Desired.Intent != nfv1.IntentRevert {
				w.complete(a.Host.Name)
			}
		}
	}
	return ro
}

// complete lets a host bring to an end what it was asked.
func (w *world) complete(name string) {
	for more := true; more; {
		more = w.agent(w.host(name))
	}
}

func TestRevertKeepsCapacity(t *testing.T) {
	w := newWorld(hostNames(6)...)
	ro := failing(w, 2)
	seen := 0
	for ro.Status.Phase == nfv1.RolloutPhaseReverting {
		for _, h := range w.hosts {
			if d := h.Spec.Desired; d.Intent == nfv1.IntentRevert {
				w.complete(h.Name)
			}
		}
		d := w.plan(ro, -1)
		back := names(d.Assignments, nfv1.IntentRevert)
		if len(back) > 2 {
			t.Fatalf("%v go back at once, and maxUnavailable is 2", back)
		}
		seen += len(back)
	}
	wantPhase(t, ro, nfv1.RolloutPhaseReverted, "6 hosts were sent back")
	if seen != 5 {
		t.Fatalf("%d hosts of the first wave went back in twos, want 5", seen)
	}
}

func TestRevertWaitsForTheHolderOfAHost(t *testing.T) {
	w := newWorld(hostNames(3)...)
	w.addRelease("a")
	older := w.addRollout("older", "a", func(s *nfv1.RolloutSpec) {
		s.Selector, s.State = &nfv1.HostSelector{MatchLabels: map[string]nfv1.LabelValue{"ring": "x"}}, nfv1.RolloutStatePaused
	})
	w.advance(time.Second)
	w.broken["host-000"] = true
	ro := w.addRollout("r", "a", func(s *nfv1.RolloutSpec) { s.OnFailure = nfv1.OnFailureRevert })
	w.plan(ro, -1)
	for _, h := range w.hosts {
		w.complete(h.Name)
	}
	w.host("host-001").Labels = map[string]string{"ring": "x"} // and belongs to the older rollout from now on
	d := w.plan(ro, -1)
	if diff := cmp.Diff([]string{"host-000", "host-002"}, slices.Sorted(slices.Values(names(d.Assignments, nfv1.IntentRevert)))); diff != "" {
		t.Fatal(diff)
	}
	wantPhase(t, ro, nfv1.RolloutPhaseReverting, "1 host is held by the older rollout older")
	older.Spec.State = nfv1.RolloutStateCancelled
	w.broken = map[string]bool{}
	w.settle()
	wantPhase(t, ro, nfv1.RolloutPhaseReverted, "3 hosts were sent back")
}

// TestSleepingHostsAreReleasedAtFailure: no laptop wakes up to a release that was stopped.
func TestSleepingHostsAreReleasedAtFailure(t *testing.T) {
	w := newWorld(hostNames(4)...)
	w.addRelease("a")
	w.broken["host-000"] = true
	ro := w.addRollout("r", "a", nil)
	w.plan(ro, -1)
	w.setOnline("host-001", false) // has not begun
	w.agent(w.host("host-002"))    // has begun
	w.setOnline("host-002", false)
	w.complete("host-000")
	d := w.plan(ro, -1)
	wantPhase(t, ro, nfv1.RolloutPhasePaused, "1 of 4 hosts failed")
	if diff := cmp.Diff([]string{"host-001"}, names(d.Assignments, nfv1.IntentNone)); diff != "" {
		t.Fatal(diff)
	}
}

// TestSuccessNeedsHealth: an outcome alone is no success, until the wave has soaked.
func TestSuccessNeedsHealth(t *testing.T) {
	w := newWorld(hostNames(3)...)
	w.addRelease("a")
	ro := w.addRollout("r", "a", canary)
	d := w.plan(ro, -1)
	first := d.Assignments[0].Host.Name
	w.complete(first)
	w.setHealth(first, metav1.ConditionUnknown)
	if d = w.plan(ro, -1); len(d.Assignments) > 0 {
		t.Fatalf("the wave ends although the health of its host is not known: %s", d.Status.Message)
	}
	w.setHealth(first, metav1.ConditionTrue)
	if d = w.plan(ro, -1); len(d.Assignments) != 2 {
		t.Fatalf("%d hosts are assigned in the second wave", len(d.Assignments))
	}
	w.setHealth(first, metav1.ConditionFalse)
	w.advance(time.Hour)
	w.plan(ro, 0)
	d = Plan(w.snapshot(ro), w.now)
	if st := d.Status.Waves[0]; st.Failed != 0 || st.Succeeded != 1 {
		t.Fatalf("a host that falls ill after its wave had soaked counts as %+v", st)
	}
}

// TestFailuresBeyondTheNames: of more failures than can be named the number stays.
func TestFailuresBeyondTheNames(t *testing.T) {
	w := newWorld(hostNames(130)...)
	w.addRelease("a")
	ro := w.addRollout("r", "a", func(s *nfv1.RolloutSpec) { s.FailureThreshold = ptrTo(intstr.FromInt32(129)) })
	w.plan(ro, -1)
	for _, h := range w.hosts[:120] {
		w.broken[h.Name] = true
		w.complete(h.Name)
	}
	w.plan(ro, -1)
	for _, h := range w.hosts[:120] { // a backup of the hosts is restored: their reports are gone
		h.Status.Attempt = nil
	}
	w.plan(ro, -1)
	if st := ro.Status.Waves[0]; st.Failed != 120 || len(st.FailedHosts) != maxFailedHosts || len(ro.Status.Failures) != maxFailures {
		t.Fatalf("%d failed, %d are named, %d have a reason", st.Failed, len(st.FailedHosts), len(ro.Status.Failures))
	}
}

// TestNoTargetsAtAll: a rollout that selects nobody fails, and does not wait for a wave.
func TestNoTargetsAtAll(t *testing.T) {
	w := newWorld(hostNames(2)...)
	w.addRelease("a")
	ro := w.addRollout("r", "a", func(s *nfv1.RolloutSpec) {
		s.Selector = &nfv1.HostSelector{MatchLabels: map[string]nfv1.LabelValue{"role": "nobody"}}
		staged(nfv1.RolloutWave{Name: "canary", Selector: &nfv1.HostSelector{MatchLabels: map[string]nfv1.LabelValue{"ring": "canary"}}}, nfv1.RolloutWave{Name: "rest"})(s)
	})
	w.settle()
	wantPhase(t, ro, nfv1.RolloutPhaseFailed, "no host to move: 0 hosts selected")
	if readyReason(ro) != ReasonNoHosts {
		t.Fatal(readyReason(ro))
	}
}

// TestWaitingForARebootSpendsNoCapacity: it can take days.
func TestWaitingForARebootSpendsNoCapacity(t *testing.T) {
	w := newWorld(hostNames(3)...)
	w.addRelease("a")
	ro := w.addRollout("r", "a", staged(nfv1.RolloutWave{Name: "all", MaxUnavailable: ptrTo(intstr.FromInt32(1))}))
	d := w.plan(ro, -1)
	h := w.host(d.Assignments[0].Host.Name)
	w.agent(h)
	h.Status.Phase = nfv1.HostPhaseAwaitingReboot
	d = w.plan(ro, -1)
	if len(d.Assignments) != 1 {
		t.Fatalf("%d hosts are assigned beside one that waits for its reboot", len(d.Assignments))
	}
	w.advance(72 * time.Hour)
	w.complete(d.Assignments[0].Host.Name)
	h.Status.Phase = nfv1.HostPhaseAwaitingReboot
	if d = w.plan(ro, 0); d.Status.Waves[0].Failed != 0 {
		t.Fatalf("a host that waits for its reboot times out: %s", d.Status.Message)
	}
}

// TestRevertIsRememberedThroughAnOutage: the phase is Blocked meanwhile, and a new attempt
// does not send forward again those who were sent back.
func TestRevertIsRememberedThroughAnOutage(t *testing.T) {
	w := newWorld(hostNames(6)...)
	ro := failing(w, 1)
	w.plan(ro, -1)
	for _, h := range w.hosts {
		w.setOnline(h.Name, false)
	}
	w.plan(ro, -1)
	wantPhase(t, ro, nfv1.RolloutPhaseBlocked, "went offline")
	ro.Spec.Attempt = 2
	for _, h := range w.hosts {
		w.setOnline(h.Name, true)
	}
	w.broken = map[string]bool{}
	w.settle()
	wantPhase(t, ro, nfv1.RolloutPhaseReverted, "6 hosts were sent back")
	if diff := cmp.Diff(hostNames(6), w.running("a")); diff != "" {
		t.Fatal(diff)
	}
}

// TestRevertFetchesFromWherePreviousCameFrom: the caches of the release that failed need
// not have it.
func TestRevertFetchesFromWherePreviousCameFrom(t *testing.T) {
	w := newWorld("h")
	w.addRelease("a").Spec.Caches[0].URL = "https://old.example.org"
	w.addRollout("before", "a", nil)
	w.settle()
	w.advance(time.Hour)
	w.addRelease("b").Spec.Caches[0].URL = "https://new.example.org"
	w.broken["h"] = true
	ro := w.addRollout("r", "b", func(s *nfv1.RolloutSpec) { s.OnFailure = nfv1.OnFailureRevert })
	w.plan(ro, -1)
	w.complete("h")
	d := w.plan(ro, -1)
	if diff := cmp.Diff([]nfv1.CacheURL{"https://old.example.org"}, d.Assignments[0].Desired.Caches); diff != "" {
		t.Fatal(diff)
	}
}

// TestReleaseIsUsed: the release must stay from before the first assignment on, until
// the last host in flight has finished.
func TestReleaseIsUsed(t *testing.T) {
	w := newWorld(hostNames(2)...)
	w.addRelease("a")
	ro := w.addRollout("r", "a", nil)
	if d := w.plan(ro, -1); !d.UseRelease {
		t.Fatal("the release may go before the hosts are assigned")
	}
	w.agent(w.host("host-000"))
	ro.Spec.State = nfv1.RolloutStateCancelled
	if d := w.plan(ro, -1); !d.UseRelease || !d.HoldDeletion {
		t.Fatal("the release may go while a host is in flight")
	}
	w.complete("host-000")
	w.settle()
	if d := w.plan(ro, -1); d.UseRelease || d.HoldDeletion {
		t.Fatalf("the release must stay although the rollout is %s", d.Status.Phase)
	}
}
