// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package rollout

import (
	"fmt"
	"slices"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

// invariants are what must hold of every decision, numbered as in the documentation of
// rollouts. They are written apart from the planner: they look at hosts, at what was
// decided, and at what was stored before.
func invariants() []invariant {
	return []invariant{
		{"1 waves in order", (*history).waveOrder},
		{"1 a wave is finished and soaks", (*history).waveEnd},
		{"2 capacity", (*history).capacity},
		{"2 the size of a wave", (*history).size},
		{"3 nothing after the threshold", (*history).stopped},
		{"4 the oldest rollout holds", (*history).holder},
		{"5 only exact reports count", (*history).exactReports},
		{"6 unknown is not healthy", (*history).unknown},
		{"7 the same plan again", (*history).stable},
		{"8 failures are sticky", (*history).sticky},
		{"9 revert to what ran before", (*history).reverted},
		{"10 revisions grow", (*history).growing},
		{"11 membership aborts nothing", (*history).membership},
		{"12 no targets, no success", (*history).noTargets},
		{"who may be assigned", (*history).assignable},
		{"kstatus", (*history).kstatus},
	}
}

type invariant struct {
	name  string
	holds func(*history, *nfv1.Rollout, Decision)
}

// check looks at a decision before it is carried out.
func (h *history) check(ro *nfv1.Rollout, d Decision) {
	for _, inv := range invariants() {
		inv.holds(h, ro, d)
	}
}

// memory is what was stored earlier in a history.
type memory struct {
	revisions map[types.UID]int64             // highest of spec.desired, for each Host
	failed    map[string]int32                // failures of a wave, for each attempt
	previous  map[string]nfv1.StorePath       // what a host ran when a rollout first had it
	waves     map[string]nfv1.WaveStatus      // numbers of waves that started
	finished  map[types.UID]nfv1.RolloutPhase // rollouts that are over
}

func newMemory() memory {
	return memory{
		revisions: map[types.UID]int64{}, failed: map[string]int32{}, previous: map[string]nfv1.StorePath{},
		waves: map[string]nfv1.WaveStatus{}, finished: map[types.UID]nfv1.RolloutPhase{},
	}
}

func waveKey(ro *nfv1.Rollout, wave string) string { return string(ro.UID) + "/" + wave }

func attemptKey(ro *nfv1.Rollout, wave string, attempt int32) string {
	return fmt.Sprintf("%s/%d", waveKey(ro, wave), attempt)
}

// remember takes over what is stored now. What was decided and not stored is not
// remembered.
func (h *history) remember() {
	for _, ro := range h.rollouts {
		for _, w := range ro.Status.Waves {
			h.seen.failed[attemptKey(ro, w.Name, ro.Status.Attempt)] = w.Failed
			if _, ok := h.seen.waves[waveKey(ro, w.Name)]; !ok && !w.StartedAt.IsZero() {
				h.seen.waves[waveKey(ro, w.Name)] = w
			}
		}
		if ro.Status.Phase.Finished() {
			h.seen.finished[ro.UID] = ro.Status.Phase
		}
	}
	for _, host := range h.hosts {
		if d := host.Spec.Desired; d != nil {
			h.seen.revisions[host.UID] = max(h.seen.revisions[host.UID], d.Revision)
			key := string(host.UID) + "/" + string(owner(d))
			if _, ok := h.seen.previous[key]; !ok {
				h.seen.previous[key] = d.PreviousStorePath
			}
		}
	}
}

// owner is the rollout that made an assignment, if one did.
func owner(d *nfv1.Desired) types.UID {
	if d == nil || d.Rollout == nil {
		return ""
	}
	return d.Rollout.UID
}

// assignedTo are the hosts that hold an assignment of a rollout, as stored.
func (h *history) assignedTo(ro *nfv1.Rollout, intent nfv1.Intent) []*nfv1.Host {
	var out []*nfv1.Host
	for _, host := range h.hosts {
		if d := host.Spec.Desired; owner(d) == ro.UID && d.Intent == intent {
			out = append(out, host)
		}
	}
	return out
}

func deploys(d Decision) []Assignment {
	return slices.DeleteFunc(slices.Clone(d.Assignments), func(a Assignment) bool { return a.Desired.Intent != nfv1.IntentDeploy })
}

// waveOrder: no host is assigned before every earlier wave has finished and soaked.
func (h *history) waveOrder(_ *nfv1.Rollout, d Decision) {
	for _, a := range deploys(d) {
		for _, w := range d.Status.Waves {
			if w.Name == a.Desired.Wave {
				break
			}
			if w.SoakedAt.IsZero() {
				h.t.Fatalf("%s is assigned in wave %q before wave %s has soaked", a.Host.Name, a.Desired.Wave, w.Name)
			}
		}
	}
}

// waveEnd: a wave ends when each of its hosts succeeded, left or failed, and one
// succeeded, and it soaks for as long as it was asked to.
func (h *history) waveEnd(ro *nfv1.Rollout, d Decision) {
	for i, w := range d.Status.Waves {
		before := waveOf(ro.Status.Waves, w.Name)
		if w.Size > 0 && !w.FinishedAt.IsZero() && before.FinishedAt.IsZero() {
			h.waveFinished(ro, d, w, i == len(d.Status.Waves)-1)
		}
		if w.Size == 0 || w.SoakedAt.IsZero() || !before.SoakedAt.IsZero() {
			continue
		}
		if soak := h.soakSeconds(ro, w.Name); h.now.Sub(w.FinishedAt.Time) < soak {
			h.t.Fatalf("wave %s soaked for %s of %s", w.Name, h.now.Sub(w.FinishedAt.Time), soak)
		}
	}
}

func (h *history) waveFinished(ro *nfv1.Rollout, d Decision, w nfv1.WaveStatus, last bool) {
	succeeded := 0
	for _, host := range h.assignedTo(ro, nfv1.IntentDeploy) {
		desired := host.Spec.Desired
		if desired.Wave != w.Name || desired.Attempt != d.Status.Attempt && !h.didIt(host) {
			continue // a failure of an earlier attempt, which is tried again in the wave then open
		}
		switch {
		case h.didIt(host) && healthStatus(host) == metav1.ConditionTrue && !slices.Contains(w.FailedHosts, nfv1.HostName(host.Name)):
			succeeded++
		case slices.Contains(w.FailedHosts, nfv1.HostName(host.Name)):
		case !h.movable(ro, host):
		default:
			h.t.Fatalf("wave %s finished, and %s neither succeeded nor failed nor left", w.Name, host.Name)
		}
	}
	left := slices.ContainsFunc(h.hosts, func(host *nfv1.Host) bool { return h.movable(ro, host) })
	if succeeded == 0 && !last && left {
		h.t.Fatalf("wave %s finished, and no host succeeded", w.Name)
	}
	if w.Failed > w.Threshold {
		h.t.Fatalf("wave %s finished with %d failures above the threshold %d", w.Name, w.Failed, w.Threshold)
	}
}

func (h *history) movable(ro *nfv1.Rollout, host *nfv1.Host) bool {
	return host.Spec.Lifecycle == nfv1.LifecycleActive && h.selects(ro, host) && h.releaseOf(ro).Spec.Hosts[host.Name] != ""
}

// didIt reports whether the host really carried out what it is assigned now.
func (h *history) didIt(host *nfv1.Host) bool {
	d := host.Spec.Desired
	return h.agents[host.Name].done[assignmentKey{host.UID, owner(d), d.Revision, d.StorePath}]
}

func (h *history) releaseOf(ro *nfv1.Rollout) *nfv1.Release {
	for _, rel := range h.releases {
		if rel.Name == ro.Spec.Release {
			return rel
		}
	}
	return &nfv1.Release{}
}

func (h *history) selects(ro *nfv1.Rollout, host *nfv1.Host) bool {
	for k, v := range ro.Spec.Selector.MatchLabels {
		if host.Labels[k] != string(v) {
			return false
		}
	}
	return true
}

func (h *history) soakSeconds(ro *nfv1.Rollout, wave string) time.Duration {
	for _, w := range ro.Spec.Strategy.Waves {
		if w.Name == wave {
			return time.Duration(w.SoakSeconds) * time.Second
		}
	}
	return 0
}

func waveOf(waves []nfv1.WaveStatus, name string) nfv1.WaveStatus {
	for _, w := range waves {
		if w.Name == name {
			return w
		}
	}
	return nfv1.WaveStatus{}
}

// capacity: no decision takes an available host beyond the wave's maxUnavailable, on the
// way there and on the way back.
func (h *history) capacity(ro *nfv1.Rollout, d Decision) {
	for _, w := range d.Status.Waves {
		fresh, unavailable := int32(0), int32(0)
		for _, a := range d.Assignments {
			damaged := a.Desired.Intent == nfv1.IntentRevert && h.failed(ro, a.Host) // goes back at once
			if a.Desired.Wave == w.Name && a.Desired.Intent != nfv1.IntentNone && h.isAvailable(ro, a.Host) && !damaged {
				fresh++
			}
		}
		for _, host := range h.hosts {
			if h.spends(ro, d, w.Name, host) {
				unavailable++
			}
		}
		if fresh > 0 && fresh+unavailable > w.MaxUnavailable {
			h.t.Fatalf("wave %s assigns %d available hosts with %d unavailable and maxUnavailable %d", w.Name, fresh, unavailable, w.MaxUnavailable)
		}
	}
}

// size: in its first attempt no wave takes more hosts than its size, but for those that
// take the place of hosts that left.
func (h *history) size(ro *nfv1.Rollout, d Decision) {
	for _, w := range d.Status.Waves[:max(len(d.Status.Waves)-1, 0)] {
		members := int32(0)
		for _, host := range h.assignedTo(ro, nfv1.IntentDeploy) {
			if host.Spec.Desired.Wave == w.Name && h.movable(ro, host) {
				members++
			}
		}
		for _, a := range deploys(d) {
			if a.Desired.Wave != w.Name || owner(a.Host.Spec.Desired) == ro.UID && a.Host.Spec.Desired.Intent == nfv1.IntentDeploy {
				continue
			}
			if members++; members > w.Size && d.Status.Attempt == 1 {
				h.t.Fatalf("wave %s of %d hosts takes %s besides %d others", w.Name, w.Size, a.Host.Name, members-1)
			}
		}
	}
}

// isAvailable: a host that works, and works for nobody.
func (h *history) isAvailable(ro *nfv1.Rollout, host *nfv1.Host) bool {
	return isOnline(host) && healthStatus(host) == metav1.ConditionTrue && !h.busy(ro, host)
}

// busy: the host has an assignment of the rollout without an end.
func (h *history) busy(ro *nfv1.Rollout, host *nfv1.Host) bool {
	d := host.Spec.Desired
	if owner(d) != ro.UID || d.Intent == nfv1.IntentNone || d.Attempt != ro.Spec.Attempt {
		return false
	}
	if slices.Contains(waveOf(ro.Status.Waves, d.Wave).FailedHosts, nfv1.HostName(host.Name)) && d.Intent == nfv1.IntentDeploy {
		return false
	}
	return matchingOutcome(host) == "" && !h.timedOut(ro, host)
}

func (h *history) timedOut(ro *nfv1.Rollout, host *nfv1.Host) bool {
	end := deadline(host, time.Duration(ro.Spec.HostTimeoutSeconds)*time.Second, ro.Status.ReachableSince.Time)
	return !h.now.Before(end)
}

// failed: the host had its try and did not make it.
func (h *history) failed(ro *nfv1.Rollout, host *nfv1.Host) bool {
	outcome := matchingOutcome(host)
	recorded := slices.Contains(waveOf(ro.Status.Waves, host.Spec.Desired.Wave).FailedHosts, nfv1.HostName(host.Name))
	return recorded || outcome != "" && outcome != nfv1.AttemptSucceeded || outcome == "" && h.timedOut(ro, host)
}

// spends: a member of the wave that is busy, is ill, or went dark.
func (h *history) spends(ro *nfv1.Rollout, d Decision, wave string, host *nfv1.Host) bool {
	desired := host.Spec.Desired
	if owner(desired) != ro.UID || desired.Wave != wave || desired.Intent == nfv1.IntentNone || desired.Attempt != ro.Spec.Attempt {
		return false
	}
	for _, a := range d.Assignments {
		if a.Host.Name == host.Name {
			return !h.isAvailable(ro, host)
		}
	}
	return !isOnline(host) || healthStatus(host) != metav1.ConditionTrue || h.busy(ro, host)
}

// stopped: once failures exceed the threshold nothing more is assigned, and offline
// hosts that have not begun are released.
func (h *history) stopped(ro *nfv1.Rollout, d Decision) {
	over := slices.ContainsFunc(d.Status.Waves, func(w nfv1.WaveStatus) bool { return w.Failed > w.Threshold })
	if !over || ro.Status.Phase.Finished() {
		return
	}
	if n := len(deploys(d)); n > 0 {
		h.t.Fatalf("%d hosts are assigned after the threshold was exceeded: %+v", n, d.Status.Waves)
	}
	if d.Status.Phase == nfv1.RolloutPhaseBlocked { // the fleet is unreachable, or the release is gone
		return
	}
	for _, host := range h.assignedTo(ro, nfv1.IntentDeploy) {
		desired := host.Spec.Desired
		sleeps := !isOnline(host) && host.Status.ObservedRevision < desired.Revision && h.busy(ro, host)
		taken := slices.ContainsFunc(d.Assignments, func(a Assignment) bool { return a.Host.Name == host.Name })
		if sleeps && !taken {
			h.t.Fatalf("%s will wake up to a release that was stopped", host.Name)
		}
	}
}

// holder: a host belongs to the oldest unfinished rollout that selects it.
func (h *history) holder(ro *nfv1.Rollout, d Decision) {
	for _, a := range d.Assignments {
		if a.Desired.Rollout.UID != ro.UID {
			h.t.Fatalf("%s: assigned for rollout %s by %s", a.Host.Name, a.Desired.Rollout.UID, ro.UID)
		}
		if a.Desired.Intent == nfv1.IntentNone {
			continue
		}
		for _, other := range h.rollouts {
			if other.UID == ro.UID || other.Status.Phase.Finished() || ending(other) || !older(other, ro) {
				continue
			}
			if h.selects(other, a.Host) {
				h.t.Fatalf("%s: assigned by %s although the older %s selects it", a.Host.Name, ro.Name, other.Name)
			}
		}
	}
}

// exactReports: what counts as succeeded was really done, whatever arrived late or twice.
func (h *history) exactReports(ro *nfv1.Rollout, d Decision) {
	if ro.Status.Phase.Finished() || d.Status.Phase == nfv1.RolloutPhaseReverting || d.Status.Phase.Finished() {
		return // the counts say what was, and hosts may belong to others by now
	}
	for _, w := range d.Status.Waves {
		did := int32(0)
		for _, host := range h.assignedTo(ro, nfv1.IntentDeploy) {
			if host.Spec.Desired.Wave == w.Name && h.didIt(host) {
				did++
			}
		}
		if w.Succeeded > did {
			h.t.Fatalf("wave %s counts %d successes, of which hosts had %d", w.Name, w.Succeeded, did)
		}
	}
}

// unknown: nothing that is not known counts as good.
func (h *history) unknown(ro *nfv1.Rollout, d Decision) {
	for _, w := range d.Status.Waves {
		before := waveOf(ro.Status.Waves, w.Name)
		verified := meta.IsStatusConditionTrue(h.releaseOf(ro).Status.Conditions, nfv1.ConditionVerified)
		if w.Size > 0 && before.StartedAt.IsZero() && !w.StartedAt.IsZero() && !verified {
			h.t.Fatalf("wave %s starts although its release is not verified", w.Name)
		}
		if !w.SoakedAt.IsZero() || d.Status.Phase == nfv1.RolloutPhaseReverting || d.Status.Phase.Finished() {
			continue
		}
		healthy := int32(0)
		for _, host := range h.assignedTo(ro, nfv1.IntentDeploy) {
			if host.Spec.Desired.Wave == w.Name && healthStatus(host) == metav1.ConditionTrue {
				healthy++
			}
		}
		if w.Succeeded > healthy {
			h.t.Fatalf("wave %s counts %d successes, and %d hosts are healthy", w.Name, w.Succeeded, healthy)
		}
	}
}

// stable: the same snapshot, in another order, gives the same decision; so does a
// snapshot in which only the status of it was written; and what was assigned is not
// assigned again.
func (h *history) stable(ro *nfv1.Rollout, d Decision) {
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
	s = h.snapshot(ro)
	s.Rollout.Status = *d.Status.DeepCopy()
	again = Plan(s, h.now)
	if diff := cmp.Diff(assigned(d), assigned(again)); diff != "" {
		h.t.Fatalf("after a crash behind the first write other hosts are assigned:\n%s", diff)
	}
	written := assigned(d)
	for _, host := range s.Hosts {
		if desired, ok := written[host.Name]; ok {
			host.Spec.Desired = desired.DeepCopy()
		}
	}
	for name := range assigned(Plan(s, h.now)) {
		if _, twice := written[name]; twice {
			h.t.Fatalf("%s is assigned again as soon as it was", name)
		}
	}
}

func assigned(d Decision) map[string]nfv1.Desired {
	out := map[string]nfv1.Desired{}
	for _, a := range d.Assignments {
		out[a.Host.Name] = a.Desired
	}
	return out
}

// sticky: within an attempt no failure is forgotten.
func (h *history) sticky(ro *nfv1.Rollout, d Decision) {
	for _, w := range d.Status.Waves {
		if before := h.seen.failed[attemptKey(ro, w.Name, d.Status.Attempt)]; w.Failed < before {
			h.t.Fatalf("wave %s: failures went down from %d to %d within attempt %d", w.Name, before, w.Failed, d.Status.Attempt)
		}
	}
}

// reverted: a revert goes to what the host ran when the rollout first had it, and leaves
// out nobody.
func (h *history) reverted(ro *nfv1.Rollout, d Decision) {
	for _, a := range d.Assignments {
		before, known := h.seen.previous[string(a.Host.UID)+"/"+string(ro.UID)]
		mine := owner(a.Host.Spec.Desired) == ro.UID
		if known && mine && before != a.Desired.PreviousStorePath {
			h.t.Fatalf("%s: previous system changed from %s to %s within a rollout", a.Host.Name, before, a.Desired.PreviousStorePath)
		}
		if a.Desired.Intent == nfv1.IntentRevert && a.Desired.StorePath != a.Desired.PreviousStorePath {
			h.t.Fatalf("%s: reverted to %s, ran %s before", a.Host.Name, a.Desired.StorePath, a.Desired.PreviousStorePath)
		}
	}
	if d.Status.Phase == nfv1.RolloutPhaseReverted && ro.Status.Phase != nfv1.RolloutPhaseReverted {
		if left := h.assignedTo(ro, nfv1.IntentDeploy); len(left) > 0 {
			h.t.Fatalf("reverted, and %s is still asked to run the release", left[0].Name)
		}
	}
}

// growing: the revision of a Host only grows.
func (h *history) growing(_ *nfv1.Rollout, d Decision) {
	for _, a := range d.Assignments {
		host, last := a.Host, h.seen.revisions[a.Host.UID]
		if host.Status.Attempt != nil {
			last = max(last, host.Status.Attempt.Revision)
		}
		if last = max(last, host.Status.ObservedRevision); a.Desired.Revision <= last {
			h.t.Fatalf("%s: revision %d is not above %d", host.Name, a.Desired.Revision, last)
		}
	}
}

// membership: hosts that come and go end no rollout, change no number of a wave that has
// started, and start no soak anew.
func (h *history) membership(ro *nfv1.Rollout, d Decision) {
	if d.Status.Phase == nfv1.RolloutPhaseFailed && !ro.Status.Phase.Finished() {
		switch reason := d.Notes[0].Reason; reason {
		case ReasonNoHosts, ReasonReleaseGone, ReasonRevertIncomplete:
		default:
			h.t.Fatalf("%s failed for %s: %s", ro.Name, reason, d.Status.Message)
		}
	}
	for _, w := range d.Status.Waves {
		began, before := h.seen.waves[waveKey(ro, w.Name)], waveOf(ro.Status.Waves, w.Name)
		if !began.StartedAt.IsZero() && (w.Size != began.Size || w.MaxUnavailable != began.MaxUnavailable || !w.StartedAt.Equal(&began.StartedAt)) {
			h.t.Fatalf("the numbers of wave %s changed after it had started", w.Name)
		}
		if !before.FinishedAt.IsZero() && !w.FinishedAt.Equal(&before.FinishedAt) {
			h.t.Fatalf("the soak of wave %s began anew", w.Name)
		}
	}
}

// noTargets: a rollout that moved nobody does not succeed.
func (h *history) noTargets(ro *nfv1.Rollout, d Decision) {
	if d.Status.Phase == nfv1.RolloutPhaseSucceeded && !ro.Status.Phase.Finished() && len(h.assignedTo(ro, nfv1.IntentDeploy)) == 0 {
		h.t.Fatalf("%s succeeded without a host", ro.Name)
	}
	for i, w := range d.Status.Waves {
		before := waveOf(ro.Status.Waves, w.Name)
		if i == len(d.Status.Waves)-1 || w.StartedAt.IsZero() || w.Size > 0 || !before.StartedAt.IsZero() {
			continue
		}
		if len(h.assignedTo(ro, nfv1.IntentDeploy)) == 0 && len(deploys(d)) > 0 {
			h.t.Fatalf("wave %s took nobody, and others are moved behind it", w.Name)
		}
	}
}

// assignable: only active hosts, in a rollout that runs, and in a wave only those online.
func (h *history) assignable(ro *nfv1.Rollout, d Decision) {
	for _, a := range deploys(d) {
		switch {
		case a.Host.Spec.Lifecycle != nfv1.LifecycleActive:
			h.t.Fatalf("%s: assigned although its lifecycle is %s", a.Host.Name, a.Host.Spec.Lifecycle)
		case ro.Spec.State != nfv1.RolloutStateRunning || !ro.DeletionTimestamp.IsZero():
			h.t.Fatalf("%s: assigned although the rollout is %s or deleted", a.Host.Name, ro.Spec.State)
		case !isOnline(a.Host) && a.Desired.Wave != "":
			h.t.Fatalf("%s: assigned in wave %s although offline", a.Host.Name, a.Desired.Wave)
		case a.Desired.StorePath == "" || a.Desired.StorePath != h.releaseOf(ro).Spec.Hosts[a.Host.Name]:
			h.t.Fatalf("%s: assigned %q, which is not of the release", a.Host.Name, a.Desired.StorePath)
		}
	}
}

// kstatus: the conditions say what tools go by, and a phase that is over stays.
func (h *history) kstatus(ro *nfv1.Rollout, d Decision) {
	if phase, over := h.seen.finished[ro.UID]; over && d.Status.Phase != phase {
		h.t.Fatalf("%s left the final phase %s for %s", ro.Name, phase, d.Status.Phase)
	}
	ready := meta.FindStatusCondition(d.Status.Conditions, nfv1.ConditionReady)
	reconciling := meta.IsStatusConditionTrue(d.Status.Conditions, nfv1.ConditionReconciling)
	stalled := meta.IsStatusConditionTrue(d.Status.Conditions, nfv1.ConditionStalled)
	ok := ready != nil && d.Status.ObservedGeneration == ro.Generation && ready.Reason != "" && d.Status.Message != ""
	switch d.Status.Phase {
	case nfv1.RolloutPhaseSucceeded:
		ok = ok && ready.Status == metav1.ConditionTrue && !reconciling && !stalled
	case nfv1.RolloutPhaseFailed, nfv1.RolloutPhaseReverted, nfv1.RolloutPhaseCancelled:
		ok = ok && ready.Status == metav1.ConditionFalse && !reconciling && stalled
	case nfv1.RolloutPhasePaused:
		ok = ok && stalled == (readyStatusReason(d) == ReasonTooManyFailures) && stalled != reconciling
	case nfv1.RolloutPhaseBlocked:
		ok = ok && stalled == (readyStatusReason(d) == ReasonReleaseGone) && stalled != reconciling
	default:
		ok = ok && ready.Status == metav1.ConditionUnknown && reconciling && !stalled
	}
	if !ok {
		h.t.Fatalf("%s in phase %s has the conditions %+v", ro.Name, d.Status.Phase, d.Status.Conditions)
	}
}

func readyStatusReason(d Decision) string {
	return readyReason(&nfv1.Rollout{Status: d.Status})
}
