// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package rollout

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"pgregory.net/rapid"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

// TestHistories plays random histories of planner, hosts and operators under faults, and
// looks at every invariant after every step. A history that fails is shrunk, and what it
// prints can be replayed. SIM_HISTORIES sets how many are played.
func TestHistories(t *testing.T) {
	if s := os.Getenv("SIM_HISTORIES"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < parts {
			t.Fatalf("SIM_HISTORIES=%q: want a number, at least %d", s, parts)
		}
		if err := flag.Set("rapid.checks", strconv.Itoa(n/parts)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range parts {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			t.Parallel()
			rapid.Check(t, playHistory)
		})
	}
}

// parts are played at the same time.
const parts = 4

func playHistory(t *rapid.T) {
	h := newHistory(t)
	h.newRollout()
	for range rapid.IntRange(5, 60).Draw(t, "steps") {
		h.step()
	}
	h.comesToRest()
}

// history is one random history: a world, and the memory of what must not change.
type history struct {
	*world
	t    *rapid.T
	seen memory

	// stale is a decision that was taken and not carried out yet: by a controller that
	// hung, or by one that does not know that it leads no more.
	stale *staleDecision

	// backup is the state of the API at some time.
	backup func()
}

type staleDecision struct {
	Snapshot
	Decision
}

func newHistory(t *rapid.T) *history {
	h := &history{t: t, world: drawWorld(t), seen: newMemory()}
	h.checks = h.check
	return h
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
	release := h.releases[rapid.IntRange(0, len(h.releases)-1).Draw(t, "release")].Name
	h.addRollout(fmt.Sprintf("ro%d", h.made), release, func(s *nfv1.RolloutSpec) {
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
			drawWaves(t)(s)
		}
	})
}

func drawWaves(t *rapid.T) func(*nfv1.RolloutSpec) {
	first := nfv1.RolloutWave{
		Name: "first", Size: drawIntOrPercent(t, "size", 1), MaxUnavailable: drawIntOrPercent(t, "max unavailable", 1),
		SoakSeconds: int32(rapid.SampledFrom([]int{0, 90}).Draw(t, "soak")),
	}
	if rapid.Bool().Draw(t, "selector") {
		first.Selector = &nfv1.HostSelector{MatchLabels: map[string]nfv1.LabelValue{"ring": "canary"}}
	}
	middle := nfv1.RolloutWave{Name: "middle", Size: drawIntOrPercent(t, "size", 1)}
	if middle.Size == nil {
		middle.Size = ptrTo(intstr.FromString("50%"))
	}
	rest := nfv1.RolloutWave{
		Name: "rest", MaxUnavailable: drawIntOrPercent(t, "max unavailable", 1),
		Approval: rapid.SampledFrom([]nfv1.WaveApproval{nfv1.WaveApprovalAutomatic, nfv1.WaveApprovalRequired}).Draw(t, "approval"),
	}
	if rapid.Bool().Draw(t, "three waves") {
		return staged(first, middle, rest)
	}
	return staged(first, rest)
}

// steps are what can happen, as often as each is worth.
func steps() []string {
	out := []string{"override", "label", "lifecycle", "new rollout", "delete rollout", "release anew", "host anew", "backup", "restore", "outage", "verdict"}
	for range 2 {
		out = append(out, "silence", "ill", "break", "late report", "time", "operator", "stale decision", "stale write")
	}
	for range 7 {
		out = append(out, "plan", "work")
	}
	return out
}

// step lets one thing happen.
func (h *history) step() {
	switch action := rapid.SampledFrom(steps()).Draw(h.t, "action"); action {
	case "plan", "stale decision", "stale write", "operator", "delete rollout":
		h.stepOfRollout(action, h.drawRollout())
	case "new rollout", "release anew", "backup", "restore", "outage", "time", "verdict":
		h.stepOfFleet(action)
	default:
		h.stepOfHost(action, h.hosts[rapid.IntRange(0, len(h.hosts)-1).Draw(h.t, "host")])
	}
}

func (h *history) drawRollout() *nfv1.Rollout {
	if len(h.rollouts) == 0 {
		h.newRollout()
	}
	return h.rollouts[rapid.IntRange(0, len(h.rollouts)-1).Draw(h.t, "rollout")]
}

func (h *history) stepOfRollout(action string, ro *nfv1.Rollout) {
	t := h.t
	switch action {
	case "plan": // and a crash after any of the writes, which are several at once
		s, d := h.decide(ro)
		if rapid.IntRange(0, 3).Draw(t, "crash before the first write") > 0 {
			lossy := rapid.Bool().Draw(t, "crash between writes")
			h.carryOut(s, d, func(int) bool { return !lossy || rapid.Bool().Draw(t, "written") })
		}
	case "stale decision":
		s, d := h.decide(ro)
		h.stale = &staleDecision{s, d}
	case "stale write":
		if h.stale != nil {
			h.carryOut(h.stale.Snapshot, h.stale.Decision, func(int) bool { return true })
			h.stale = nil
		}
	case "operator":
		h.operate(ro)
	case "delete rollout":
		if ro.DeletionTimestamp.IsZero() && rapid.IntRange(0, 2).Draw(t, "really") == 0 {
			now := h.stamp()
			ro.DeletionTimestamp = &now
		}
	}
	h.remember()
}

func (h *history) stepOfHost(action string, host *nfv1.Host) {
	t := h.t
	switch action {
	case "work":
		for _, x := range h.hosts {
			if rapid.Bool().Draw(t, "works") {
				h.agent(x)
			}
			h.override(x)
		}
	case "silence":
		h.setOnline(host.Name, !isOnline(host))
	case "ill":
		h.setHealth(host.Name, rapid.SampledFrom([]metav1.ConditionStatus{metav1.ConditionTrue, metav1.ConditionFalse, metav1.ConditionUnknown}).Draw(t, "health"))
	case "break":
		h.broken[host.Name] = !h.broken[host.Name]
	case "late report": // of long ago, or the last one twice
		if sent := h.agents[host.Name].sent; len(sent) > 0 {
			h.deliver(host, sent[rapid.IntRange(0, len(sent)-1).Draw(t, "report")])
		}
	case "override":
		host.Spec.Override = &nfv1.DesiredOverride{ID: fmt.Sprintf("o%d", h.serial()), StorePath: storePath("by-hand", host.Name)}
		if rapid.Bool().Draw(t, "clear") {
			host.Spec.Override.StorePath, host.Spec.Override.Clear = "", nfv1.OverrideClearDesired
		}
	case "label":
		host.Labels = map[string]string{"ring": rapid.SampledFrom([]string{"canary", "prod", "none"}).Draw(t, "ring")}
	case "lifecycle":
		host.Spec.Lifecycle = rapid.SampledFrom([]nfv1.Lifecycle{nfv1.LifecycleActive, nfv1.LifecycleActive, nfv1.LifecycleMaintenance}).Draw(t, "lifecycle")
	case "host anew": // deleted and created by Git again: the agent keeps its memory
		h.hosts = slices.DeleteFunc(slices.Clone(h.hosts), func(x *nfv1.Host) bool { return x.Name == host.Name })
		agent := h.agents[host.Name]
		h.addHost(host.Name, host.Labels).Status.Conditions = nil
		fresh := h.agents[host.Name]
		fresh.running, fresh.done = agent.running, agent.done
		fresh.uid, fresh.observed, fresh.attempt, fresh.phase = agent.uid, agent.observed, agent.attempt, agent.phase
	}
}

func (h *history) stepOfFleet(action string) {
	t := h.t
	switch action {
	case "new rollout":
		if len(h.rollouts) < 3 {
			h.advance(time.Second)
			h.addRelease(fmt.Sprintf("r%d", h.made))
			h.newRollout()
		}
	case "release anew":
		old := h.releases[rapid.IntRange(0, len(h.releases)-1).Draw(t, "release")]
		h.releases = slices.DeleteFunc(slices.Clone(h.releases), func(r *nfv1.Release) bool { return r.UID == old.UID })
		h.addRelease(old.Name)
	case "verdict":
		rel := h.releases[rapid.IntRange(0, len(h.releases)-1).Draw(t, "release")]
		setVerified(rel, rapid.SampledFrom([]metav1.ConditionStatus{metav1.ConditionTrue, metav1.ConditionTrue, metav1.ConditionFalse, metav1.ConditionUnknown}).Draw(t, "verdict"))
	case "backup":
		h.backup = h.keep()
	case "restore":
		if h.backup != nil {
			h.backup()
			h.backup, h.stale, h.seen = nil, nil, newMemory()
		}
	case "outage":
		for _, x := range h.hosts {
			h.setOnline(x.Name, false)
		}
	case "time":
		h.advance(time.Duration(rapid.SampledFrom([]int{1, 30, 100, 600, 2000}).Draw(t, "seconds")) * time.Second)
	}
}

// keep answers a function that brings the API back to what it is now. The hosts go on:
// they may have seen higher revisions than the API will know of.
func (h *history) keep() func() {
	var hosts []*nfv1.Host
	for _, x := range h.hosts {
		hosts = append(hosts, x.DeepCopy())
	}
	var rollouts []*nfv1.Rollout
	for _, x := range h.rollouts {
		rollouts = append(rollouts, x.DeepCopy())
	}
	var releases []*nfv1.Release
	for _, x := range h.releases {
		releases = append(releases, x.DeepCopy())
	}
	return func() { h.hosts, h.rollouts, h.releases = hosts, rollouts, releases }
}

func (h *history) operate(ro *nfv1.Rollout) {
	if ro.Spec.State == nfv1.RolloutStateCancelled {
		return
	}
	switch rapid.SampledFrom([]string{"pause", "run", "run", "attempt", "approve", "threshold", "cancel"}).Draw(h.t, "operation") {
	case "pause":
		ro.Spec.State = nfv1.RolloutStatePaused
	case "run":
		ro.Spec.State = nfv1.RolloutStateRunning
	case "attempt":
		ro.Spec.Attempt++
	case "approve":
		ro.Spec.ApprovedWaves = []string{"rest"}
	case "threshold":
		ro.Spec.FailureThreshold = drawIntOrPercent(h.t, "threshold", 0)
	case "cancel":
		if rapid.IntRange(0, 4).Draw(h.t, "cancel") == 0 {
			ro.Spec.State = nfv1.RolloutStateCancelled
		}
	}
	ro.Generation++
}

// comesToRest ends the faults and asserts that every rollout reaches a state that only
// an operator can leave, or success.
func (h *history) comesToRest() {
	h.broken = map[string]bool{}
	for _, host := range h.hosts {
		host.Spec.Lifecycle = nfv1.LifecycleActive
		h.setOnline(host.Name, true)
		h.setHealth(host.Name, metav1.ConditionTrue)
	}
	for _, rel := range h.releases {
		setVerified(rel, metav1.ConditionTrue)
	}
	for range 4 {
		h.advance(time.Hour)
		h.settle()
	}
	for _, ro := range h.rollouts {
		switch p := ro.Status.Phase; {
		case p.Finished(), p == nfv1.RolloutPhasePaused, p == nfv1.RolloutPhaseAwaitingApproval:
		case p == nfv1.RolloutPhaseBlocked, p == nfv1.RolloutPhaseReverting && readyReason(ro) == ReasonHeld:
			h.checkBlocked(ro)
		default:
			h.t.Fatalf("%s is stuck in phase %s: %s", ro.Name, p, ro.Status.Message)
		}
	}
}

// checkBlocked: when everything is well, only these reasons still hold a rollout.
func (h *history) checkBlocked(ro *nfv1.Rollout) {
	switch reason := readyReason(ro); reason {
	case ReasonHeld, ReasonOlderRelease, ReasonEmptyWave, ReasonNoneSucceeded:
	default:
		h.t.Fatalf("%s stays blocked: %s: %s", ro.Name, reason, ro.Status.Message)
	}
}
