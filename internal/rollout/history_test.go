// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package rollout

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"pgregory.net/rapid"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

// history is one random history: a world, the memory of what must not change, and the
// checks on every decision.
type history struct {
	*world
	t         *rapid.T
	revisions map[string]int64
	failed    map[string]int32
	previous  map[string]nfv1.StorePath
}

// TestHistories plays random histories of planner and hosts under faults and looks at
// the invariants after every step. A failing history is shrunk and can be replayed; see
// the output of rapid. SIM_HISTORIES sets how many are played.
func TestHistories(t *testing.T) {
	if n := os.Getenv("SIM_HISTORIES"); n != "" {
		if err := flag.Set("rapid.checks", n); err != nil {
			t.Fatalf("SIM_HISTORIES=%q: %v", n, err)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		h := &history{t: t, world: drawWorld(t), revisions: map[string]int64{}, failed: map[string]int32{}, previous: map[string]nfv1.StorePath{}}
		h.checks = h.check
		h.newRollout()
		for range rapid.IntRange(5, 60).Draw(t, "steps") {
			h.step()
		}
		h.comesToRest()
	})
}

func drawWorld(t *rapid.T) *world {
	w := newWorld()
	for i := range rapid.IntRange(1, 12).Draw(t, "hosts") {
		ring := rapid.SampledFrom([]string{"canary", "prod"}).Draw(t, "ring")
		w.addHost(fmt.Sprintf("h%02d", i), map[string]string{"ring": ring})
	}
	w.addRelease("r0")
	return w
}

func drawIntOrPercent(t *rapid.T, label string, lowest int) *intstr.IntOrString {
	switch rapid.IntRange(0, 2).Draw(t, label+" kind") {
	case 0:
		return nil
	case 1:
		return ptrTo(intstr.FromInt32(int32(rapid.IntRange(lowest, 6).Draw(t, label))))
	default:
		return ptrTo(intstr.FromString(fmt.Sprintf("%d%%", rapid.IntRange(lowest, 100).Draw(t, label))))
	}
}

func (h *history) newRollout() {
	t := h.t
	h.addRollout(fmt.Sprintf("ro%d", len(h.rollouts)), h.releases[rapid.IntRange(0, len(h.releases)-1).Draw(t, "release")].Name, func(s *nfv1.RolloutSpec) {
		if rapid.Bool().Draw(t, "slice") {
			s.Selector = &nfv1.HostSelector{MatchLabels: map[string]nfv1.LabelValue{"ring": "prod"}}
		}
		s.FailureThreshold = drawIntOrPercent(t, "threshold", 0)
		s.OnFailure = rapid.SampledFrom([]nfv1.OnFailure{nfv1.OnFailurePause, nfv1.OnFailureRevert}).Draw(t, "on failure")
		s.OfflinePolicy = rapid.SampledFrom([]nfv1.OfflinePolicy{nfv1.OfflinePolicyDefer, nfv1.OfflinePolicyWait}).Draw(t, "offline policy")
		s.OlderRelease = rapid.SampledFrom([]nfv1.OlderReleasePolicy{nfv1.OlderReleaseAllow, nfv1.OlderReleaseBlock}).Draw(t, "older release")
		switch rapid.IntRange(0, 2).Draw(t, "strategy") {
		case 1:
			canary(s)
		case 2:
			first := nfv1.RolloutWave{Name: "first", Size: drawIntOrPercent(t, "size", 1), MaxUnavailable: drawIntOrPercent(t, "max unavailable", 1), SoakSeconds: int32(rapid.SampledFrom([]int{0, 90}).Draw(t, "soak"))}
			if rapid.Bool().Draw(t, "selector") {
				first.Selector = &nfv1.HostSelector{MatchLabels: map[string]nfv1.LabelValue{"ring": "canary"}}
			}
			staged(first, nfv1.RolloutWave{Name: "rest", MaxUnavailable: drawIntOrPercent(t, "max unavailable", 1)})(s)
		}
	})
}

// step lets one thing happen: a plan that may crash between two writes, a host that
// works, goes silent, comes back, falls ill, loses its memory; an operator; time.
func (h *history) step() {
	t := h.t
	host := h.hosts[rapid.IntRange(0, len(h.hosts)-1).Draw(t, "host")]
	ro := h.rollouts[rapid.IntRange(0, len(h.rollouts)-1).Draw(t, "rollout")]
	switch rapid.SampledFrom([]string{"plan", "plan", "plan", "work", "work", "work", "silence", "ill", "break", "stale", "time", "operator", "label", "lifecycle", "new"}).Draw(t, "action") {
	case "plan":
		h.plan(ro, rapid.IntRange(-1, 4).Draw(t, "writes"))
	case "work":
		for _, x := range h.hosts {
			if rapid.Bool().Draw(t, "works") {
				h.agent(x)
			}
		}
	case "silence":
		h.setOnline(host.Name, !isOnline(host))
	case "ill":
		status := rapid.SampledFrom([]metav1.ConditionStatus{metav1.ConditionTrue, metav1.ConditionFalse, metav1.ConditionUnknown}).Draw(t, "health")
		h.setCondition(host, nfv1.ConditionHealthy, status, "Drawn")
	case "break":
		h.broken[host.Name] = !h.broken[host.Name]
	case "stale": // a restored backup of the host: an old report
		host.Status.ObservedRevision = rapid.Int64Range(0, host.Status.ObservedRevision).Draw(t, "observed")
		host.Status.Attempt = nil
	case "time":
		h.advance(time.Duration(rapid.SampledFrom([]int{1, 30, 100, 600, 2000}).Draw(t, "seconds")) * time.Second)
	case "operator":
		h.operate(ro)
	case "label":
		host.Labels = map[string]string{"ring": rapid.SampledFrom([]string{"canary", "prod", "none"}).Draw(t, "ring")}
	case "lifecycle":
		host.Spec.Lifecycle = rapid.SampledFrom([]nfv1.Lifecycle{nfv1.LifecycleActive, nfv1.LifecycleActive, nfv1.LifecycleMaintenance}).Draw(t, "lifecycle")
	case "new":
		if len(h.rollouts) < 3 {
			h.advance(time.Second)
			h.addRelease(fmt.Sprintf("r%d", len(h.releases)))
			h.newRollout()
		}
	}
}

func (h *history) operate(ro *nfv1.Rollout) {
	if ro.Spec.State == nfv1.RolloutStateCancelled {
		return
	}
	switch rapid.IntRange(0, 4).Draw(h.t, "operation") {
	case 0:
		ro.Spec.State = nfv1.RolloutStatePaused
	case 1, 2:
		ro.Spec.State = nfv1.RolloutStateRunning
	case 3:
		ro.Spec.Attempt++
	case 4:
		if rapid.IntRange(0, 4).Draw(h.t, "cancel") == 0 {
			ro.Spec.State = nfv1.RolloutStateCancelled
		}
	}
	ro.Generation++
}

// check looks at a decision before it is carried out.
func (h *history) check(ro *nfv1.Rollout, d Decision) {
	h.checkStable(ro, d)
	h.checkStatus(ro, d)
	for _, a := range d.Assignments {
		h.checkAssignment(ro, a)
	}
	if ro.Status.Phase == nfv1.RolloutPhaseReverting || d.Status.Phase == nfv1.RolloutPhaseReverting {
		return
	}
	h.checkCapacity(ro, d)
	for i := range d.Status.Waves {
		h.checkOrder(d, i)
	}
}

// checkStable: the same snapshot, in another order, gives the same decision.
func (h *history) checkStable(ro *nfv1.Rollout, d Decision) {
	s := h.snapshot(ro)
	slices.Reverse(s.Hosts)
	slices.Reverse(s.Rollouts)
	again := Plan(s, h.now)
	if diff := cmp.Diff(d.Status.Waves, again.Status.Waves); diff != "" {
		h.t.Fatalf("another order gives other waves:\n%s", diff)
	}
	if diff := cmp.Diff(assigned(d), assigned(again)); diff != "" {
		h.t.Fatalf("another order gives other assignments:\n%s", diff)
	}
}

func assigned(d Decision) map[string]nfv1.Desired {
	out := map[string]nfv1.Desired{}
	for _, a := range d.Assignments {
		out[a.Host.Name] = a.Desired
	}
	return out
}

func (h *history) checkStatus(ro *nfv1.Rollout, d Decision) {
	if ro.Status.Phase.Finished() && d.Status.Phase != ro.Status.Phase {
		h.t.Fatalf("%s left the final phase %s for %s", ro.Name, ro.Status.Phase, d.Status.Phase)
	}
	if d.Status.Phase == nfv1.RolloutPhaseSucceeded && d.Status.Hosts.Assigned == 0 && !ro.Status.Phase.Finished() {
		h.t.Fatalf("%s succeeded without a host", ro.Name)
	}
	for _, w := range d.Status.Waves {
		key := fmt.Sprintf("%s/%s/%d", ro.UID, w.Name, d.Status.Attempt)
		if w.Failed < h.failed[key] {
			h.t.Fatalf("wave %s: failures went down from %d to %d within attempt %d", w.Name, h.failed[key], w.Failed, d.Status.Attempt)
		}
	}
}

func (h *history) checkAssignment(ro *nfv1.Rollout, a Assignment) {
	host, desired := h.host(a.Host.Name), a.Desired
	if desired.Revision <= h.revisions[host.Name] || desired.Revision <= host.Status.ObservedRevision {
		h.t.Fatalf("%s: revision %d is not above %d", host.Name, desired.Revision, h.revisions[host.Name])
	}
	if desired.Rollout.UID != ro.UID {
		h.t.Fatalf("%s: assigned for rollout %s by %s", host.Name, desired.Rollout.UID, ro.UID)
	}
	if desired.Intent == nfv1.IntentDeploy {
		h.checkDeploy(ro, host, desired)
	}
	key := host.Name + "/" + string(ro.UID)
	if before, ok := h.previous[key]; ok && before != desired.PreviousStorePath && host.Spec.Desired != nil && host.Spec.Desired.Rollout.UID == ro.UID {
		h.t.Fatalf("%s: previous system changed from %s to %s within a rollout", host.Name, before, desired.PreviousStorePath)
	}
	if desired.Intent == nfv1.IntentRevert && desired.StorePath != desired.PreviousStorePath {
		h.t.Fatalf("%s: reverted to %s, ran %s before", host.Name, desired.StorePath, desired.PreviousStorePath)
	}
}

func (h *history) checkDeploy(ro *nfv1.Rollout, host *nfv1.Host, desired nfv1.Desired) {
	if host.Spec.Lifecycle != nfv1.LifecycleActive {
		h.t.Fatalf("%s: assigned although its lifecycle is %s", host.Name, host.Spec.Lifecycle)
	}
	if ro.Spec.State != nfv1.RolloutStateRunning {
		h.t.Fatalf("%s: assigned although the rollout is %s", host.Name, ro.Spec.State)
	}
	if !isOnline(host) && desired.Wave != "" {
		h.t.Fatalf("%s: assigned in wave %s although offline", host.Name, desired.Wave)
	}
	for _, other := range h.rollouts {
		if other.UID == ro.UID || other.Status.Phase.Finished() || other.Spec.State == nfv1.RolloutStateCancelled || !older(other, ro) {
			continue
		}
		if t, err := newTargeter(&other.Spec); err != nil || t.selects(host) {
			h.t.Fatalf("%s: assigned by %s although the older %s selects it", host.Name, ro.Name, other.Name)
		}
	}
}

// checkCapacity: no decision takes an available host beyond maxUnavailable, and none
// assigns after more failures than the threshold.
func (h *history) checkCapacity(ro *nfv1.Rollout, d Decision) {
	for _, w := range d.Status.Waves {
		fresh, unavailable := int32(0), int32(0)
		for _, a := range d.Assignments {
			if a.Desired.Wave == w.Name && a.Desired.Intent == nfv1.IntentDeploy && available(a.Host) {
				fresh++
			}
		}
		if fresh == 0 {
			continue
		}
		if w.Failed > w.Threshold {
			h.t.Fatalf("wave %s assigns %d hosts with %d failures above the threshold %d", w.Name, fresh, w.Failed, w.Threshold)
		}
		for _, host := range h.hosts {
			if h.spends(ro, w.Name, host) {
				unavailable++
			}
		}
		if fresh+unavailable > w.MaxUnavailable {
			h.t.Fatalf("wave %s assigns %d available hosts with %d unavailable and maxUnavailable %d", w.Name, fresh, unavailable, w.MaxUnavailable)
		}
	}
}

func available(host *nfv1.Host) bool {
	v := newHostView(&nfv1.Rollout{ObjectMeta: metav1.ObjectMeta{UID: "nobody"}}, nil, host, true, metav1.Time{})
	return v.online && v.healthy
}

// spends is written apart from the planner: a member of the wave that has an assignment
// without a matching end, is ill, or went dark.
func (h *history) spends(ro *nfv1.Rollout, wave string, host *nfv1.Host) bool {
	d := host.Spec.Desired
	if d == nil || d.Rollout.UID != ro.UID || d.Wave != wave || d.Intent != nfv1.IntentDeploy || d.Attempt != ro.Spec.Attempt {
		return false
	}
	if !isOnline(host) || !available(host) {
		return true
	}
	return matchingOutcome(host) == "" && h.now.Before(deadline(host, time.Duration(ro.Spec.HostTimeoutSeconds)*time.Second, ro.Status.ReachableSince.Time))
}

// checkOrder: a wave is assigned only after every earlier one has soaked.
func (h *history) checkOrder(d Decision, i int) {
	w := d.Status.Waves[i]
	for _, a := range d.Assignments {
		if a.Desired.Wave != w.Name || a.Desired.Intent != nfv1.IntentDeploy {
			continue
		}
		for _, earlier := range d.Status.Waves[:i] {
			if earlier.SoakedAt.IsZero() {
				h.t.Fatalf("%s is assigned in wave %s before wave %s has soaked", a.Host.Name, w.Name, earlier.Name)
			}
		}
	}
}

func (h *history) plan(ro *nfv1.Rollout, writes int) {
	h.world.plan(ro, writes)
	for _, w := range ro.Status.Waves { // what was decided and not stored is not remembered
		h.failed[fmt.Sprintf("%s/%s/%d", ro.UID, w.Name, ro.Status.Attempt)] = w.Failed
	}
	for _, host := range h.hosts {
		if d := host.Spec.Desired; d != nil {
			h.revisions[host.Name] = max(h.revisions[host.Name], d.Revision)
			h.previous[host.Name+"/"+string(d.Rollout.UID)] = d.PreviousStorePath
		}
	}
}

// comesToRest ends the faults and asserts that every rollout reaches a state that only
// an operator can leave, or success.
func (h *history) comesToRest() {
	h.broken = map[string]bool{}
	for _, host := range h.hosts {
		host.Spec.Lifecycle = nfv1.LifecycleActive
		h.setOnline(host.Name, true)
		h.setCondition(host, nfv1.ConditionHealthy, metav1.ConditionTrue, nfv1.ReasonUpToDate)
	}
	for range 4 {
		h.advance(time.Hour)
		h.settle()
	}
	for _, ro := range h.rollouts {
		switch p := ro.Status.Phase; {
		case p.Finished(), p == nfv1.RolloutPhasePaused, p == nfv1.RolloutPhaseBlocked:
		case p == nfv1.RolloutPhaseReverting && readyReason(ro) == ReasonHeld:
		default:
			h.t.Fatalf("%s is stuck in phase %s: %s", ro.Name, p, ro.Status.Message)
		}
		h.checkBlocked(ro)
	}
}

// checkBlocked: when everything is well, only these reasons still hold a rollout.
func (h *history) checkBlocked(ro *nfv1.Rollout) {
	if ro.Status.Phase != nfv1.RolloutPhaseBlocked {
		return
	}
	reason := ro.Status.Conditions[0].Reason
	switch reason {
	case ReasonHeld, ReasonOlderRelease, ReasonEmptyWave, ReasonNoneSucceeded:
	default:
		h.t.Fatalf("%s stays blocked: %s: %s", ro.Name, reason, ro.Status.Message)
	}
}
