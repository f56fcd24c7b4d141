// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package rollout

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

// Bounds of the API.
const (
	maxMessage     = 1024
	maxHostMessage = 512
	maxFailures    = 32
	maxFailedHosts = 100
)

// decide closes the run: counts, conditions, and when to look again.
func (p *planner) decide() Decision {
	if p.invalid == nil {
		p.refreshWaves()
		p.refreshFailures()
		counts := p.hostCounts()
		if stored := p.r.Status; stored.Phase.Finished() && stored.Hosts != nil {
			counts = settledCounts(*stored.Hosts, counts)
		}
		p.status.Hosts = &counts
		p.status.HostProgress = fmt.Sprintf("%d/%d", counts.Succeeded, counts.Total)
		p.status.WaveProgress = p.waveProgress()
	}
	p.setConditions()
	d := Decision{
		Status:       p.status,
		Assignments:  p.assignments,
		UseRelease:   p.useRelease,
		HoldDeletion: !p.status.Phase.Finished(),
		Failed:       p.failed(),
		Notes:        p.notes,
	}
	if !p.recheck.IsZero() {
		d.RecheckAfter = max(p.recheck.Sub(p.now), time.Second)
	}
	return d
}

// settledCounts are those of a rollout that is over. Later rollouts take its hosts away,
// which takes nothing from what it had done; only its late hosts still make a difference.
func settledCounts(stored, now nfv1.HostCounts) nfv1.HostCounts {
	stored.Succeeded = max(stored.Succeeded, now.Succeeded)
	stored.Failed = max(stored.Failed, now.Failed)
	stored.Deferred = min(stored.Deferred, now.Deferred)
	return stored
}

// refreshWaves brings the counts of the waves up to date. While hosts are sent back the
// counts stay as they were: they say how far the rollout had come.
func (p *planner) refreshWaves() {
	switch p.status.Phase {
	case nfv1.RolloutPhaseReverting, nfv1.RolloutPhaseReverted, nfv1.RolloutPhaseFailed:
		return
	}
	if p.r.Status.Phase.Finished() {
		return
	}
	for i := range p.status.Waves {
		w, st := p.waves[i], &p.status.Waves[i]
		if st.StartedAt.IsZero() {
			continue
		}
		t := p.count(w.Name)
		st.Assigned, st.InFlight, st.Succeeded, st.Skipped = t.assigned, t.inFlight, t.succeeded, t.skipped
		st.Threshold = waveThreshold(p.r.Spec.FailureThreshold, st.Size)
		st.Deferred = 0
		if st.FinishedAt.IsZero() {
			for _, v := range p.candidates(w) {
				if !v.online {
					st.Deferred++
				}
			}
		}
		p.recordFailures(w.Name, st)
	}
}

// recordFailures adds the hosts of a wave that failed. The count never goes down within
// an attempt, whatever becomes of the hosts.
func (p *planner) recordFailures(name string, st *nfv1.WaveStatus) {
	failed := map[nfv1.HostName]bool{}
	for _, h := range st.FailedHosts {
		failed[h] = true
	}
	for _, v := range p.views {
		if v.member() && v.wave == name && v.failReason != "" {
			failed[nfv1.HostName(v.host.Name)] = true
		}
	}
	st.Failed = max(st.Failed, int32(len(failed))) //nolint:gosec // bounded by the number of hosts
	if len(failed) == 0 {
		return
	}
	names := make([]nfv1.HostName, 0, len(failed))
	for h := range failed {
		names = append(names, h)
	}
	slices.Sort(names)
	st.FailedHosts = keepRecorded(st.FailedHosts, names)
}

// keepRecorded appends the new names to the recorded ones, up to the bound, so that a
// name that was recorded once is never pushed out by another.
func keepRecorded(recorded, all []nfv1.HostName) []nfv1.HostName {
	out := slices.Clone(recorded)
	for _, n := range all {
		if len(out) >= maxFailedHosts {
			break
		}
		if !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	return out
}

// refreshFailures lists the first failures with their reasons, in the order in which
// they became known.
func (p *planner) refreshFailures() {
	known := map[string]bool{}
	for _, f := range p.status.Failures {
		known[f.Wave+"/"+string(f.Host)] = true
	}
	for _, f := range p.failed() {
		if len(p.status.Failures) >= maxFailures {
			return
		}
		if !known[f.Wave+"/"+string(f.Host)] {
			p.status.Failures = append(p.status.Failures, f)
		}
	}
}

// failed are the hosts whose assignment failed, but for those that are to be tried again.
func (p *planner) failed() []nfv1.HostFailure {
	var out []nfv1.HostFailure
	for _, v := range p.views {
		if v.failReason != "" && !v.retry {
			out = append(out, nfv1.HostFailure{
				Host: nfv1.HostName(v.host.Name), Wave: v.wave,
				Reason: v.failReason, Message: truncate(v.failMessage, maxHostMessage),
			})
		}
	}
	return out
}

// hostCounts counts the targets of the rollout.
func (p *planner) hostCounts() nfv1.HostCounts {
	c := nfv1.HostCounts{Skipped: int32(len(p.missing))} //nolint:gosec // spec.hosts is bounded
	for _, v := range p.views {
		if v.mine && v.intent != nfv1.IntentNone && !v.retry {
			c.Assigned++
		}
		if !v.target {
			continue
		}
		if v.skip != "" {
			c.Skipped++
			continue
		}
		c.Total++
		switch {
		case v.intent == nfv1.IntentDeploy && v.succeeded():
			c.Succeeded++
		case v.mine && v.failReason != "" && !v.retry:
		case v.mine && v.wave == "" && v.inFlight(), v.unassigned() && !v.online:
			c.Deferred++
		case v.unassigned():
			c.Unassigned++
		}
	}
	for i := range p.status.Waves {
		c.Failed += p.status.Waves[i].Failed
	}
	for _, v := range p.views {
		if v.mine && v.wave == "" && v.failReason != "" {
			c.Failed++
		}
	}
	return c
}

func (p *planner) waveProgress() string {
	open := 0
	for i := range p.status.Waves {
		if !p.status.Waves[i].StartedAt.IsZero() {
			open = i + 1
		}
	}
	return fmt.Sprintf("%d/%d", open, len(p.status.Waves))
}

func (p *planner) targetSummary() string {
	var targets, lifecycle, missing int
	for _, v := range p.views {
		if !v.target {
			continue
		}
		targets++
		switch v.skip {
		case ReasonLifecycle:
			lifecycle++
		case ReasonClosureMissing:
			missing++
		}
	}
	return fmt.Sprintf("%s selected, %d named without a Host, %d kept out by their lifecycle, %d without a closure in release %s",
		plural(targets, "host"), len(p.missing), lifecycle, missing, p.r.Spec.Release)
}

// skipSummary names the targets that are kept out, as the end of a message.
func (p *planner) skipSummary() string {
	names := map[string][]string{}
	for _, v := range p.views {
		if v.target && v.skip != "" {
			names[v.skip] = append(names[v.skip], v.host.Name)
		}
	}
	if len(p.missing) > 0 {
		names[ReasonNotFound] = slices.Clone(p.missing)
	}
	text := ""
	for _, reason := range slices.Sorted(maps.Keys(names)) {
		text += fmt.Sprintf("; skipped as %s: %s", reason, sample(names[reason]))
	}
	return text
}

// readyReason is the reason of the stored condition Ready.
func readyReason(r *nfv1.Rollout) string {
	if c := meta.FindStatusCondition(r.Status.Conditions, nfv1.ConditionReady); c != nil {
		return c.Reason
	}
	return ""
}

// setConditions follows kstatus: Reconciling or Stalled is present only while True, and
// Ready sums up.
func (p *planner) setConditions() {
	ready, other, absent := metav1.ConditionUnknown, nfv1.ConditionReconciling, nfv1.ConditionStalled
	switch p.status.Phase {
	case nfv1.RolloutPhaseSucceeded:
		ready, other = metav1.ConditionTrue, ""
	case nfv1.RolloutPhaseFailed, nfv1.RolloutPhaseReverted, nfv1.RolloutPhaseCancelled:
		p.stalled = true
	}
	if p.stalled {
		ready, other, absent = metav1.ConditionFalse, nfv1.ConditionStalled, nfv1.ConditionReconciling
	}
	n := p.notes[0]
	p.condition(nfv1.ConditionReady, ready, n)
	if other != "" {
		p.condition(other, metav1.ConditionTrue, n)
	} else {
		meta.RemoveStatusCondition(&p.status.Conditions, nfv1.ConditionReconciling)
	}
	meta.RemoveStatusCondition(&p.status.Conditions, absent)
}

func (p *planner) condition(kind string, status metav1.ConditionStatus, n Note) {
	meta.SetStatusCondition(&p.status.Conditions, metav1.Condition{
		Type: kind, Status: status, Reason: n.Reason, Message: n.Message,
		ObservedGeneration: p.r.Generation, LastTransitionTime: p.stamp(),
	})
}

func phaseName(phase nfv1.RolloutPhase) string {
	if phase == "" {
		return string(nfv1.RolloutPhasePending)
	}
	return string(phase)
}
