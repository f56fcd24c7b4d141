// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package rollout

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

func canary(s *nfv1.RolloutSpec) { s.Strategy.Type = nfv1.StrategyCanary }

func staged(waves ...nfv1.RolloutWave) func(*nfv1.RolloutSpec) {
	return func(s *nfv1.RolloutSpec) {
		s.Strategy = nfv1.RolloutStrategy{Type: nfv1.StrategyStaged, Waves: waves}
	}
}

func ptrTo(v intstr.IntOrString) *intstr.IntOrString { return &v }

func wantPhase(t *testing.T, ro *nfv1.Rollout, phase nfv1.RolloutPhase, message string) {
	t.Helper()
	if ro.Status.Phase != phase || !strings.Contains(ro.Status.Message, message) {
		t.Fatalf("rollout %s: phase %s, message %q; want phase %s and a message with %q", ro.Name, ro.Status.Phase, ro.Status.Message, phase, message)
	}
}

func TestAllAtOnce(t *testing.T) {
	w := newWorld(hostNames(5)...)
	w.addRelease("a")
	ro := w.addRollout("r", "a", nil)
	d := w.plan(ro, -1)
	if len(d.Assignments) != 5 || !d.UseRelease || !d.HoldDeletion {
		t.Fatalf("first plan: %d assignments, use %v, hold %v; want 5, true, true", len(d.Assignments), d.UseRelease, d.HoldDeletion)
	}
	w.settle()
	wantPhase(t, ro, nfv1.RolloutPhaseSucceeded, "5 of 5 hosts run release a")
	if diff := cmp.Diff(hostNames(5), w.running("a")); diff != "" {
		t.Fatal(diff)
	}
	if ro.Status.HostProgress != "5/5" || ro.Status.WaveProgress != "1/1" {
		t.Fatalf("progress %s %s", ro.Status.HostProgress, ro.Status.WaveProgress)
	}
}

func TestCanaryPasses(t *testing.T) {
	w := newWorld(hostNames(4)...)
	w.addRelease("a")
	ro := w.addRollout("r", "a", canary)
	if d := w.plan(ro, -1); len(d.Assignments) != 1 || d.Assignments[0].Desired.Wave != "canary" {
		t.Fatalf("first plan assigns %d hosts, want one canary", len(d.Assignments))
	}
	w.settle()
	wantPhase(t, ro, nfv1.RolloutPhaseSucceeded, "4 of 4")
}

func TestCanaryFailurePausesAndTouchesNobodyElse(t *testing.T) {
	w := newWorld(hostNames(4)...)
	rel := w.addRelease("bad")
	for _, p := range rel.Spec.Hosts {
		w.broken[string(p)] = true
	}
	ro := w.addRollout("r", "bad", canary)
	w.settle()
	wantPhase(t, ro, nfv1.RolloutPhasePaused, "wave canary: 1 of 1 host failed, more than failureThreshold allows (0)")
	if !meta.IsStatusConditionTrue(ro.Status.Conditions, nfv1.ConditionStalled) || !meta.IsStatusConditionFalse(ro.Status.Conditions, nfv1.ConditionReady) {
		t.Fatalf("conditions %+v", ro.Status.Conditions)
	}
	touched := 0
	for _, h := range w.hosts {
		if h.Spec.Desired != nil {
			touched++
		}
	}
	if touched != 1 || len(w.running("bad")) != 0 {
		t.Fatalf("%d hosts touched, %v run the bad release", touched, w.running("bad"))
	}
	want := []nfv1.HostFailure{{Host: ro.Status.Waves[0].FailedHosts[0], Wave: "canary", Reason: nfv1.ReasonHealthCheckFailed, Message: "health check web did not pass within 30 s"}}
	if diff := cmp.Diff(want, ro.Status.Failures); diff != "" {
		t.Fatal(diff)
	}
}

func TestRaisedAttemptTriesFailedHostsAgain(t *testing.T) {
	w := newWorld(hostNames(3)...)
	rel := w.addRelease("a")
	for _, p := range rel.Spec.Hosts {
		w.broken[string(p)] = true
	}
	ro := w.addRollout("r", "a", canary)
	w.settle()
	wantPhase(t, ro, nfv1.RolloutPhasePaused, "failed")
	w.broken = map[string]bool{}
	ro.Spec.Attempt = 2
	w.settle()
	wantPhase(t, ro, nfv1.RolloutPhaseSucceeded, "3 of 3")
	for _, h := range w.hosts {
		if h.Spec.Desired.PreviousStorePath != storePath("factory", h.Name) {
			t.Fatalf("%s: previous is %s after the second attempt", h.Name, h.Spec.Desired.PreviousStorePath)
		}
	}
}

func TestStagedWavesSoakAndWaitForApproval(t *testing.T) {
	w := newWorld(hostNames(10)...)
	w.addRelease("a")
	ro := w.addRollout("r", "a", staged(
		nfv1.RolloutWave{Name: "first", Size: ptrTo(intstr.FromString("25%")), SoakSeconds: 60},
		nfv1.RolloutWave{Name: "rest", Approval: nfv1.WaveApprovalRequired, MaxUnavailable: ptrTo(intstr.FromInt32(2))},
	))
	w.settle()
	wantPhase(t, ro, nfv1.RolloutPhaseSoaking, "wave first: 3 succeeded, soaking until")
	if n := len(w.running("a")); n != 3 {
		t.Fatalf("%d hosts moved in the first wave, want 3 (25%% of 10, rounded up)", n)
	}
	w.advance(59 * time.Second)
	w.settle()
	wantPhase(t, ro, nfv1.RolloutPhaseSoaking, "")
	w.advance(3 * time.Second)
	w.settle()
	wantPhase(t, ro, nfv1.RolloutPhaseAwaitingApproval, `add "rest" to spec.approvedWaves`)
	ro.Spec.ApprovedWaves = []string{"rest"}
	if d := w.plan(ro, -1); len(d.Assignments) != 0 || readyReason(ro) != ReasonReleaseNotVerified {
		t.Fatalf("the wave starts on a verdict that is a minute old: %d assignments, %s", len(d.Assignments), ro.Status.Message)
	}
	if d := w.plan(ro, -1); len(d.Assignments) != 2 {
		t.Fatalf("%d assignments at once, want maxUnavailable 2", len(d.Assignments))
	}
	w.settle()
	wantPhase(t, ro, nfv1.RolloutPhaseSucceeded, "10 of 10")
}

func TestUnhealthyInSoakFails(t *testing.T) {
	w := newWorld(hostNames(3)...)
	w.addRelease("a")
	ro := w.addRollout("r", "a", staged(
		nfv1.RolloutWave{Name: "first", Size: ptrTo(intstr.FromInt32(1)), SoakSeconds: 600}, nfv1.RolloutWave{Name: "rest"}))
	w.settle()
	h := w.host(w.running("a")[0])
	w.advance(time.Minute)
	w.setHealth(h.Name, metav1.ConditionFalse)
	w.settle()
	wantPhase(t, ro, nfv1.RolloutPhasePaused, "wave first: 1 of 1 host failed")
	w.setHealth(h.Name, metav1.ConditionTrue)
	w.settle()
	wantPhase(t, ro, nfv1.RolloutPhasePaused, "") // sticky
}

func TestOfflineHostIsDeferredAndConverges(t *testing.T) {
	w := newWorld(hostNames(4)...)
	w.addRelease("a")
	w.setOnline("host-002", false)
	ro := w.addRollout("r", "a", canary)
	w.settle()
	wantPhase(t, ro, nfv1.RolloutPhaseSucceeded, "3 of 4 hosts run release a; 1 offline host converges when it returns")
	if ro.Status.Hosts.Deferred != 1 {
		t.Fatalf("deferred %d", ro.Status.Hosts.Deferred)
	}
	w.advance(48 * time.Hour)
	w.setOnline("host-002", true)
	w.settle()
	if diff := cmp.Diff(hostNames(4), w.running("a")); diff != "" {
		t.Fatal(diff)
	}
	if ro.Status.Phase != nfv1.RolloutPhaseSucceeded || ro.Status.Hosts.Deferred != 0 || ro.Status.Hosts.Succeeded != 4 {
		t.Fatalf("after the return: %s %+v", ro.Status.Phase, ro.Status.Hosts)
	}
}

func TestLaterRolloutsTakeNothingFromAFinishedOne(t *testing.T) {
	w := newWorld(hostNames(4)...)
	w.addRelease("a")
	w.addRelease("b")
	first := w.addRollout("first", "a", canary)
	w.settle()
	want := *first.Status.Hosts
	w.advance(time.Minute)
	w.addRollout("second", "b", func(s *nfv1.RolloutSpec) { s.Selector, s.Hosts = nil, []nfv1.HostName{"host-001"} })
	w.settle()
	if diff := cmp.Diff(hostNames(4)[1:2], w.running("b")); diff != "" {
		t.Fatal(diff)
	}
	if diff := cmp.Diff(want, *first.Status.Hosts); diff != "" || first.Status.HostProgress != "4/4" {
		t.Errorf("progress %s, counts (-then +now):\n%s", first.Status.HostProgress, diff)
	}
}

func TestCanaryThatGoesDarkFailsAtItsTimeout(t *testing.T) {
	w := newWorld(hostNames(4)...)
	w.addRelease("a")
	ro := w.addRollout("r", "a", canary)
	d := w.plan(ro, -1)
	name := d.Assignments[0].Host.Name
	w.agent(w.host(name)) // begins
	w.setOnline(name, false)
	w.settle()
	wantPhase(t, ro, nfv1.RolloutPhaseProgressing, "1 in flight")
	d = w.plan(ro, -1)
	if d.RecheckAfter != 30*time.Minute {
		t.Fatalf("look again after %s, want the host timeout", d.RecheckAfter)
	}
	w.advance(d.RecheckAfter)
	w.settle()
	wantPhase(t, ro, nfv1.RolloutPhasePaused, "failed")
	if got := ro.Status.Failures[0].Reason; got != ReasonTimeout {
		t.Fatalf("reason %s", got)
	}
}

func TestHoldsBeforeTheFirstWave(t *testing.T) {
	verified := func(status metav1.ConditionStatus, reason string) func(*world, *nfv1.Rollout) {
		return func(w *world, _ *nfv1.Rollout) {
			meta.SetStatusCondition(&w.releases[0].Status.Conditions, metav1.Condition{Type: nfv1.ConditionVerified, Status: status, Reason: reason, Message: "why"})
		}
	}
	tests := map[string]struct {
		prepare func(*world, *nfv1.Rollout)
		phase   nfv1.RolloutPhase
		message string
	}{
		"no release":           {func(w *world, _ *nfv1.Rollout) { w.releases = nil }, nfv1.RolloutPhaseBlocked, "there is no release a in namespace fleet yet"},
		"release not checked":  {func(w *world, _ *nfv1.Rollout) { w.releases[0].Status.Conditions = nil }, nfv1.RolloutPhaseBlocked, "release a has not been checked yet"},
		"release unverifiable": {verified(metav1.ConditionUnknown, nfv1.ReasonCacheUnreachable), nfv1.RolloutPhaseBlocked, "is not verified: CacheUnreachable: why"},
		"release untrusted":    {verified(metav1.ConditionFalse, nfv1.ReasonUntrustedSignature), nfv1.RolloutPhaseBlocked, "is not verified: UntrustedSignature: why"},
		"skipped verification": {func(w *world, ro *nfv1.Rollout) {
			verified(metav1.ConditionUnknown, nfv1.ReasonVerificationSkipped)(w, ro)
			w.releases[0].Spec.Verification = nfv1.VerificationSkip
		}, nfv1.RolloutPhaseProgressing, "in flight"},
		"paused":     {func(_ *world, ro *nfv1.Rollout) { ro.Spec.State = nfv1.RolloutStatePaused }, nfv1.RolloutPhasePaused, "paused by spec.state"},
		"cancelled":  {func(_ *world, ro *nfv1.Rollout) { ro.Spec.State = nfv1.RolloutStateCancelled }, nfv1.RolloutPhaseCancelled, "cancelled"},
		"no targets": {func(_ *world, ro *nfv1.Rollout) { ro.Spec.Selector = nil; ro.Spec.Hosts = []nfv1.HostName{"ghost"} }, nfv1.RolloutPhaseFailed, "0 hosts selected, 1 named without a Host"},
		"maintenance": {func(w *world, _ *nfv1.Rollout) {
			for _, h := range w.hosts {
				h.Spec.Lifecycle = nfv1.LifecycleMaintenance
			}
		}, nfv1.RolloutPhaseFailed, "3 kept out by their lifecycle"},
		"no closure": {func(w *world, _ *nfv1.Rollout) { clear(w.releases[0].Spec.Hosts) }, nfv1.RolloutPhaseFailed, "3 without a closure"},
		"typo in the canary's selector": {func(_ *world, ro *nfv1.Rollout) {
			staged(nfv1.RolloutWave{Name: "canary", Selector: &nfv1.HostSelector{MatchLabels: map[string]nfv1.LabelValue{"canray": "yes"}}}, nfv1.RolloutWave{Name: "rest"})(&ro.Spec)
		}, nfv1.RolloutPhaseBlocked, "wave canary: its selector matches none of the rollout's targets"},
		"everything offline": {func(w *world, _ *nfv1.Rollout) {
			for i, h := range w.hosts {
				w.now = w.now.Add(time.Duration(i) * time.Hour)
				w.setOnline(h.Name, false)
			}
		}, nfv1.RolloutPhaseBlocked, "no host succeeded and 3 hosts are offline"},
		"gateway outage": {func(w *world, _ *nfv1.Rollout) {
			for _, h := range w.hosts {
				w.setOnline(h.Name, false)
			}
		}, nfv1.RolloutPhaseBlocked, "3 of 3 online hosts went offline within 3m0s"},
		"older rollout": {func(w *world, ro *nfv1.Rollout) {
			ro.CreationTimestamp = metav1.NewTime(w.now.Add(time.Hour))
			older := w.addRollout("older", "a", nil)
			older.Spec.State = nfv1.RolloutStatePaused
		}, nfv1.RolloutPhaseBlocked, "3 hosts are held by the older rollout older"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(hostNames(3)...)
			w.addRelease("a")
			ro := w.addRollout("r", "a", nil)
			tc.prepare(w, ro)
			for _, rel := range w.releases {
				rel.Status.VerifiedAt = w.stamp()
			}
			d := w.plan(ro, -1)
			wantPhase(t, ro, tc.phase, tc.message)
			if tc.phase != nfv1.RolloutPhaseProgressing && len(d.Assignments) > 0 {
				t.Fatalf("assigns %d hosts although held", len(d.Assignments))
			}
		})
	}
}

func TestOlderReleaseWaitsUnlessAllowed(t *testing.T) {
	w := newWorld(hostNames(2)...)
	w.addRelease("old")
	w.advance(time.Hour)
	w.addRelease("new")
	w.addRollout("forward", "new", nil)
	w.settle()
	w.advance(time.Hour)
	back := w.addRollout("back", "old", nil)
	w.settle()
	wantPhase(t, back, nfv1.RolloutPhaseBlocked, "is older than what 2 targets run (host-000, host-001)")
	back.Spec.State = nfv1.RolloutStateCancelled
	w.settle()
	allowed := w.addRollout("allowed", "old", func(s *nfv1.RolloutSpec) { s.OlderRelease = nfv1.OlderReleaseAllow })
	w.settle()
	wantPhase(t, allowed, nfv1.RolloutPhaseSucceeded, "2 of 2")
	if diff := cmp.Diff(hostNames(2), w.running("old")); diff != "" {
		t.Fatal(diff)
	}
}

func TestRevertGoesBackToWhatRanBefore(t *testing.T) {
	w := newWorld(hostNames(6)...)
	w.addRelease("a")
	w.addRollout("a", "a", nil)
	w.settle()
	w.advance(time.Hour)
	w.addRelease("b")
	w.broken["host-004"] = true
	ro := w.addRollout("b", "b", func(s *nfv1.RolloutSpec) { s.OnFailure = nfv1.OnFailureRevert })
	w.plan(ro, -1)
	for _, h := range w.hosts {
		for w.agent(h) {
		}
	}
	w.broken = map[string]bool{}
	w.settle()
	wantPhase(t, ro, nfv1.RolloutPhaseReverted, "6 hosts were sent back")
	if diff := cmp.Diff(hostNames(6), w.running("a")); diff != "" {
		t.Fatal(diff)
	}
}

func TestReportsThatDoNotMatchAreIgnored(t *testing.T) {
	w := newWorld("h")
	w.addRelease("a")
	ro := w.addRollout("r", "a", nil)
	w.plan(ro, -1)
	h := w.host("h")
	good := nfv1.HostAttempt{Revision: 1, StorePath: h.Spec.Desired.StorePath, RolloutUID: ro.UID, Outcome: nfv1.AttemptSucceeded}
	for name, spoil := range map[string]func(*nfv1.HostAttempt){
		"revision":   func(a *nfv1.HostAttempt) { a.Revision = 2 },
		"store path": func(a *nfv1.HostAttempt) { a.StorePath = storePath("x", "h") },
		"rollout":    func(a *nfv1.HostAttempt) { a.RolloutUID = "another" },
	} {
		a := good
		spoil(&a)
		h.Status.Attempt = &a
		if d := w.plan(ro, 0); d.Status.Phase != nfv1.RolloutPhaseProgressing {
			t.Errorf("a report with another %s moves the rollout to %s", name, d.Status.Phase)
		}
	}
	h.Status.Attempt = &good
	if d := w.plan(ro, 0); d.Status.Phase != nfv1.RolloutPhaseSucceeded {
		t.Errorf("the exact report gives %s: %s", d.Status.Phase, d.Status.Message)
	}
}

func TestDeletedAndRemadeReleaseEndsTheRollout(t *testing.T) {
	w := newWorld(hostNames(3)...)
	w.addRelease("a")
	ro := w.addRollout("r", "a", canary)
	w.plan(ro, -1)
	w.releases = nil
	w.addRelease("a").UID = "made-anew"
	w.plan(ro, -1)
	wantPhase(t, ro, nfv1.RolloutPhaseBlocked, "1 host in flight finishes")
	w.settle()
	wantPhase(t, ro, nfv1.RolloutPhaseFailed, "release a was deleted or made anew")
}
