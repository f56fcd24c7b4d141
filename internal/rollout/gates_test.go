// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package rollout

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

// TestHostGates: what keeps single hosts from being assigned in a wave that is open.
func TestHostGates(t *testing.T) {
	one := func(s *nfv1.RolloutSpec) {
		staged(nfv1.RolloutWave{Name: "all", MaxUnavailable: ptrTo(intstr.FromInt32(1))})(s)
	}
	tests := map[string]struct {
		spec    func(*nfv1.RolloutSpec)
		prepare func(*world)
		taken   []string
		phase   nfv1.RolloutPhase
		note    Note // that must be there
	}{
		"nothing": {taken: []string{"host-000", "host-001", "host-002"}, phase: nfv1.RolloutPhaseProgressing},
		"an offline host is left for later": {
			prepare: func(w *world) { w.setOnline("host-001", false) },
			taken:   []string{"host-000", "host-002"}, phase: nfv1.RolloutPhaseProgressing,
			note: Note{Wave: "all", Host: "host-001", Reason: ReasonOffline, Message: "offline; it is assigned when it returns"},
		},
		"an offline host holds its wave under Wait": {
			spec: func(s *nfv1.RolloutSpec) { s.OfflinePolicy = nfv1.OfflinePolicyWait },
			prepare: func(w *world) {
				w.setOnline("host-001", false)
				for _, n := range []string{"host-000", "host-002"} { // they are done
					w.host(n).Spec.Lifecycle = nfv1.LifecycleMaintenance
				}
			},
			phase: nfv1.RolloutPhaseBlocked,
			note:  Note{Wave: "all", Host: "host-001", Reason: ReasonOffline, Message: "wave all: waits for offline hosts such as host-001, because offlinePolicy is Wait"},
		},
		"a host of which nothing is known is offline": {
			prepare: func(w *world) { w.host("host-001").Status.Conditions = nil },
			taken:   []string{"host-000", "host-002"}, phase: nfv1.RolloutPhaseProgressing,
			note: Note{Wave: "all", Host: "host-001", Reason: ReasonOffline, Message: "offline; it is assigned when it returns"},
		},
		"one at a time": {
			spec: one, taken: []string{"host-001"}, phase: nfv1.RolloutPhaseProgressing,
			note: Note{
				Wave: "all", Host: "host-002", Reason: ReasonCapacity,
				Message: "wave all: 1 host is unavailable and maxUnavailable is 1; the wave goes on when they recover",
			},
		},
		"in the last wave a sick host comes first, and takes the place": {
			spec: one, prepare: func(w *world) { w.setHealth("host-002", metav1.ConditionFalse) },
			taken: []string{"host-002"}, phase: nfv1.RolloutPhaseProgressing,
		},
		"health that is not known is no health": {
			spec: one, prepare: func(w *world) { w.setHealth("host-002", metav1.ConditionUnknown) },
			taken: []string{"host-002"}, phase: nfv1.RolloutPhaseProgressing,
		},
		"a host in maintenance is kept out": {
			prepare: func(w *world) { w.host("host-001").Spec.Lifecycle = nfv1.LifecycleMaintenance },
			taken:   []string{"host-000", "host-002"}, phase: nfv1.RolloutPhaseProgressing,
			note: Note{Host: "host-001", Reason: ReasonLifecycle, Message: "kept out: its lifecycle is Maintenance"},
		},
		"a host that never reported is kept out while it is provisioned": {
			prepare: func(w *world) {
				w.host("host-001").Spec.Lifecycle, w.host("host-001").Status.ObservedGeneration = nfv1.LifecycleProvisioning, -1
				w.host("host-002").Spec.Lifecycle = nfv1.LifecycleProvisioning
			},
			taken: []string{"host-000", "host-002"}, phase: nfv1.RolloutPhaseProgressing,
			note: Note{Host: "host-001", Reason: ReasonLifecycle, Message: "kept out: its lifecycle is Provisioning"},
		},
		"a host without a closure is kept out": {
			prepare: func(w *world) { delete(w.releases[0].Spec.Hosts, "host-001") },
			taken:   []string{"host-000", "host-002"}, phase: nfv1.RolloutPhaseProgressing,
			note: Note{Host: "host-001", Reason: ReasonClosureMissing, Message: "kept out: the release has no closure for it"},
		},
		"a host that is being deleted is kept out": {
			prepare: func(w *world) { now := w.stamp(); w.host("host-001").DeletionTimestamp = &now },
			taken:   []string{"host-000", "host-002"}, phase: nfv1.RolloutPhaseProgressing,
			note: Note{Host: "host-001", Reason: ReasonDeleting, Message: "kept out: the Host is being deleted"},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(hostNames(3)...)
			w.addRelease("a")
			ro := w.addRollout("r", "a", tc.spec)
			if tc.prepare != nil {
				tc.prepare(w)
			}
			d := w.plan(ro, -1)
			taken := map[string]bool{}
			for _, a := range d.Assignments {
				taken[a.Host.Name] = true
			}
			want := map[string]bool{}
			for _, n := range tc.taken {
				want[n] = true
			}
			if diff := cmp.Diff(want, taken); diff != "" {
				t.Fatalf("assigned (-want +got):\n%s", diff)
			}
			if d.Status.Phase != tc.phase {
				t.Fatalf("phase %s, want %s", d.Status.Phase, tc.phase)
			}
			checkNote(t, d, tc.note)
		})
	}
}

func checkNote(t *testing.T, d Decision, want Note) {
	t.Helper()
	if want == (Note{}) {
		return
	}
	for _, n := range d.Notes {
		if n == want {
			return
		}
	}
	t.Fatalf("no note %+v in %+v", want, d.Notes)
}

// TestCanaryIsNeverTheSickest: whatever is wrong with hosts, the canary is one that is
// well, if there is one.
func TestCanaryIsNeverTheSickest(t *testing.T) {
	w := newWorld(hostNames(5)...)
	w.addRelease("a")
	for _, n := range []string{"host-000", "host-001", "host-002", "host-003"} {
		w.setHealth(n, metav1.ConditionFalse)
	}
	d := w.plan(w.addRollout("r", "a", canary), -1)
	if len(d.Assignments) != 1 || d.Assignments[0].Host.Name != "host-004" {
		t.Fatalf("the canary is %v", assigned(d))
	}
}

// TestWaveOfWhichNobodySucceeded: failures within the threshold do not open the next
// wave when they are all that there is.
func TestWaveOfWhichNobodySucceeded(t *testing.T) {
	w := newWorld(hostNames(4)...)
	w.addRelease("a")
	for _, n := range hostNames(4) {
		w.broken[n] = true
	}
	ro := w.addRollout("r", "a", func(s *nfv1.RolloutSpec) { canary(s); s.FailureThreshold = ptrTo(intstr.FromInt32(1)) })
	w.settle()
	wantPhase(t, ro, nfv1.RolloutPhaseBlocked, "wave canary: no host succeeded (1 failed, 0 left)")
	w.broken = map[string]bool{}
	ro.Spec.Attempt = 2
	w.settle()
	wantPhase(t, ro, nfv1.RolloutPhaseSucceeded, "4 of 4")
}

// TestVerdictIsTakenAnew: a wave starts on a verdict of the last minute, and a cache that
// went away in between holds it.
func TestVerdictIsTakenAnew(t *testing.T) {
	w := newWorld(hostNames(2)...)
	rel := w.addRelease("a")
	ro := w.addRollout("r", "a", canary)
	w.plan(ro, -1)
	w.advance(time.Hour)
	for _, h := range w.hosts {
		for w.agent(h) {
		}
	}
	d := Plan(w.snapshot(ro), w.now)
	if len(d.Assignments) != 0 || d.Notes[0].Reason != ReasonReleaseNotVerified || d.Status.Phase != nfv1.RolloutPhaseProgressing {
		t.Fatalf("on an old verdict: %s: %s", d.Status.Phase, d.Status.Message)
	}
	ro.Status = d.Status
	setVerified(rel, metav1.ConditionUnknown)
	d = Plan(w.snapshot(ro), w.now)
	if len(d.Assignments) != 0 || d.Status.Phase != nfv1.RolloutPhaseBlocked {
		t.Fatalf("without a cache: %s: %s", d.Status.Phase, d.Status.Message)
	}
	setVerified(rel, metav1.ConditionTrue)
	rel.Status.VerifiedAt = w.stamp()
	if d = Plan(w.snapshot(ro), w.now); len(d.Assignments) != 1 {
		t.Fatalf("on a new verdict: %s: %s", d.Status.Phase, d.Status.Message)
	}
}
