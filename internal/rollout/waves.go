// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package rollout

import (
	"fmt"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

// stageWaves moves hosts, wave by wave, and ends the rollout after the last one.
func (p *planner) stageWaves() bool {
	p.useRelease = true
	if p.nothingToDo() {
		return p.phase(nfv1.RolloutPhaseFailed, ReasonNoHosts, "no host to move: %s", p.targetSummary())
	}
	if p.status.ReleaseUID == "" {
		p.status.ReleaseUID = p.s.Release.UID
	}
	for i := range p.waves {
		if p.stageWave(i) {
			return true
		}
	}
	return p.finish()
}

// nothingToDo reports whether the rollout has no target that it could move or has
// moved, before any wave began.
func (p *planner) nothingToDo() bool {
	if !p.status.Waves[0].StartedAt.IsZero() {
		return false
	}
	for _, v := range p.views {
		if v.movable() || v.mine {
			return false
		}
	}
	return true
}

// stageWave works on one wave. It answers true when the rollout stands at this wave.
func (p *planner) stageWave(i int) bool {
	w, st := p.waves[i], &p.status.Waves[i]
	if !st.SoakedAt.IsZero() {
		return false
	}
	if st.StartedAt.IsZero() && p.startWave(i) {
		return true
	}
	if st.FinishedAt.IsZero() {
		if b := p.moveWave(w, st); b != nil {
			return p.phase(b.phase, b.Reason, "%s", b.Message)
		}
		st.FinishedAt = p.stamp()
	}
	if left := p.soakLeft(w, st); left > 0 {
		p.look(p.now.Add(left))
		return p.phase(nfv1.RolloutPhaseSoaking, ReasonSoaking,
			"wave %s: %d succeeded, soaking until %s", w.Name, p.count(w.Name).succeeded, p.now.Add(left).UTC().Format(time.RFC3339))
	}
	st.SoakedAt = p.stamp()
	return false
}

// soakLeft is how long the wave has to be watched still. The stored time has whole
// seconds, so one is added: a soak is never shorter than asked.
func (p *planner) soakLeft(w wave, st *nfv1.WaveStatus) time.Duration {
	if w.SoakSeconds == 0 || st.Size == 0 {
		return 0
	}
	end := st.FinishedAt.Add(time.Duration(w.SoakSeconds)*time.Second + time.Second)
	return max(end.Sub(p.now), 0)
}

// startWave fixes the numbers of a wave, or holds it. It answers true when the wave is
// held; a wave whose matches are all taken is passed over.
func (p *planner) startWave(i int) bool {
	w, st := p.waves[i], &p.status.Waves[i]
	in := waveInput{p: p, wave: w, candidates: p.candidates(w)}
	for _, g := range waveGates() {
		if b := g(in); b != nil {
			st.ReadyAt = metav1.Time{}
			return p.phase(b.phase, b.Reason, "%s", b.Message)
		}
	}
	if b := p.checkRelease(in, st); b != nil {
		return p.phase(b.phase, b.Reason, "%s", b.Message)
	}
	n := int32(len(in.candidates)) //nolint:gosec // a namespace has far fewer hosts than 2^31
	st.StartedAt = p.stamp()
	if n == 0 {
		st.FinishedAt, st.SoakedAt = st.StartedAt, st.StartedAt
		return false
	}
	st.Size = waveSize(w.Size, n)
	st.MaxUnavailable = waveCapacity(w.MaxUnavailable, n)
	st.Threshold = waveThreshold(p.r.Spec.FailureThreshold, st.Size)
	return false
}

// checkRelease notes when the wave was ready for its release to be looked at, which is
// what the release controller goes by, and holds the wave until it was.
func (p *planner) checkRelease(in waveInput, st *nfv1.WaveStatus) *block {
	if st.ReadyAt.IsZero() {
		st.ReadyAt = p.stamp()
	}
	return gateVerified(in, st.ReadyAt.Time)
}

// candidates are the targets that a wave could take now. A host that failed in an
// earlier attempt joins the wave that is open, whatever its labels.
func (p *planner) candidates(w wave) []*hostView {
	var out []*hostView
	for _, v := range p.views {
		if v.unassigned() && (v.retry || w.selector.Matches(labels.Set(v.host.Labels))) {
			out = append(out, v)
		}
	}
	return out
}

// tally counts the members of a wave.
type tally struct {
	assigned, inFlight, succeeded, failed, skipped int32
}

// places is how many of size hosts the wave can take still. A host that left makes room
// for another, so that a canary that goes into maintenance is not the end of canaries.
func (t tally) places(size int32) int32 { return max(size-(t.assigned-t.skipped), 0) }

func (p *planner) count(name string) tally {
	var t tally
	for _, v := range p.views {
		if !v.member() || v.wave != name {
			continue
		}
		t.assigned++
		switch {
		case v.failReason != "":
			t.failed++
		case v.left():
			t.skipped++
		case v.succeeded():
			t.succeeded++
		default:
			t.inFlight++
		}
	}
	return t
}

// moveWave assigns what may be assigned now. It answers nil when the wave has finished,
// else what holds it.
func (p *planner) moveWave(w wave, st *nfv1.WaveStatus) *block {
	pending := p.assignWave(w, st)
	t := p.count(w.Name)
	p.lookAtDeadlines()
	switch {
	case t.inFlight > 0:
		return progressing(ReasonProgressing, "wave %s: %d of %d succeeded, %d in flight%s", w.Name, t.succeeded, st.Size, t.inFlight, pending.suffix())
	case pending.hold != nil:
		return pending.hold
	case t.succeeded == 0 && pending.offline > 0:
		return blocked(ReasonAllHostsOffline, "wave %s: no host succeeded and %s offline; the wave goes on when one returns",
			w.Name, verb(int(pending.offline), "host is", "hosts are"))
	case t.succeeded == 0 && (t.failed > 0 || !w.last && p.hasTargets()):
		return blocked(ReasonNoneSucceeded, "wave %s: no host succeeded (%d failed, %d left); raise attempt to try failed hosts again, or cancel the rollout",
			w.Name, t.failed, t.skipped)
	default:
		return nil
	}
}

// hasTargets reports whether there is a host that the rollout could move or has moved.
func (p *planner) hasTargets() bool {
	return slices.ContainsFunc(p.views, (*hostView).movable)
}

// finish ends the rollout after its last wave. Hosts that are still offline get their
// assignment first, outside any wave, and converge when they return.
func (p *planner) finish() bool {
	for _, v := range p.views {
		if v.unassigned() && p.heldBy(v) == nil {
			p.assign(v, nfv1.IntentDeploy, "", v.path)
		}
	}
	c := p.hostCounts()
	if n := len(p.assignments); n > 0 {
		return p.phase(nfv1.RolloutPhaseProgressing, ReasonProgressing, "every wave is done; assigning %s for their return", plural(n, "offline host"))
	}
	if c.Assigned == 0 || c.Total == 0 {
		return p.phase(nfv1.RolloutPhaseFailed, ReasonNoHosts, "every target left before it was moved: %s", p.targetSummary())
	}
	late := ""
	if c.Deferred > 0 {
		late = "; " + verb(int(c.Deferred), "offline host converges when it returns", "offline hosts converge when they return")
	}
	if c.Failed > 0 {
		late += fmt.Sprintf("; %d failed", c.Failed)
	}
	return p.phase(nfv1.RolloutPhaseSucceeded, ReasonSucceeded, "%d of %s run release %s%s%s",
		c.Succeeded, plural(c.Total, "host"), p.r.Spec.Release, late, p.skipSummary())
}
