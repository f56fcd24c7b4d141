// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package rollout

import (
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

// Plan decides what to do about a rollout at a point in time.
//
// Planning the same snapshot again gives the same decision; planning after the decision
// was carried out, in whole or in part, goes on from there.
func Plan(s Snapshot, now time.Time) Decision {
	p := newPlanner(s, now)
	for _, stage := range stages() {
		if stage(p) {
			break
		}
	}
	return p.decide()
}

// stages are looked at in this order; the first that answers true has settled the
// phase of the rollout. A stage that comes earlier wins over all that come later.
func stages() []func(*planner) bool {
	return []func(*planner) bool{
		(*planner).stageFinished,     // over for good: only late hosts are watched
		(*planner).stageInvalid,      // cannot be evaluated
		(*planner).stageEnding,       // cancelled or deleted
		(*planner).stageUnreachable,  // most of the fleet went silent at once
		(*planner).stageReverting,    // on the way back, needs no release
		(*planner).stageReleaseGone,  // the pinned release is no more
		(*planner).stageFailures,     // more failures than the threshold
		(*planner).stagePaused,       // an operator's pause
		(*planner).stageReleaseReady, // no release yet
		(*planner).stageWaves,        // forward
	}
}

// planner is one run of Plan: the observations and the decision in the making.
type planner struct {
	s   Snapshot
	now time.Time
	r   *nfv1.Rollout

	waves   []wave
	targets *targeter
	invalid error
	holders *holders
	views   []*hostView
	missing []string
	frozen  bool
	lost    fleetLoss

	// reverting says that the rollout is on the way back, which it never leaves.
	reverting bool

	status      nfv1.RolloutStatus
	stalled     bool
	notes       []Note
	assignments []Assignment
	useRelease  bool
	recheck     time.Time
}

func newPlanner(s Snapshot, now time.Time) *planner {
	p := &planner{s: s, now: now, r: s.Rollout, holders: newHolders(s.Rollouts)}
	p.status = *s.Rollout.Status.DeepCopy()
	p.status.ObservedGeneration = s.Rollout.Generation
	if p.targets, p.invalid = newTargeter(&p.r.Spec); p.invalid != nil {
		return p
	}
	if p.waves, p.invalid = effectiveWaves(p.r.Spec.Strategy); p.invalid != nil {
		return p
	}
	p.lost = findFleetLoss(s.Hosts, s.OfflineWindow)
	p.frozen = p.lost.lost > 0
	if !p.frozen && readyReason(p.r) == ReasonFleetUnreachable {
		p.status.ReachableSince = p.stamp()
	}
	p.reverting = isReverting(s)
	p.startAttempt()
	p.observe()
	return p
}

// startAttempt forgets the failures of earlier attempts when an operator raised
// spec.attempt, and makes the list of waves when there is none yet.
func (p *planner) startAttempt() {
	if len(p.status.Waves) == 0 {
		for _, w := range p.waves {
			p.status.Waves = append(p.status.Waves, nfv1.WaveStatus{Name: w.Name})
		}
	}
	if p.status.Attempt == p.r.Spec.Attempt || p.r.Status.Phase.Finished() || p.reverting {
		return
	}
	p.status.Attempt = p.r.Spec.Attempt
	p.status.Failures = nil
	for i := range p.status.Waves {
		p.status.Waves[i].Failed, p.status.Waves[i].FailedHosts = 0, nil
	}
}

// observe makes a view of every host and judges its assignment.
func (p *planner) observe() {
	sticky, release := p.stickyFailures(), p.pinnedRelease()
	p.views = make([]*hostView, 0, len(p.s.Hosts))
	for _, h := range p.s.Hosts {
		v := newHostView(p.r, release, h, p.targets.selects(h), p.status.ReachableSince)
		p.judge(v, sticky)
		if v.target && v.skip != "" {
			p.hostNote(v, v.skip, "kept out: %s", skipText(v))
		}
		p.views = append(p.views, v)
	}
	p.missing = p.missingHosts()
}

// missingHosts are the names of spec.hosts that there is no Host of.
func (p *planner) missingHosts() []string {
	if len(p.r.Spec.Hosts) == 0 {
		return nil
	}
	there := make(map[string]bool, len(p.s.Hosts))
	for _, h := range p.s.Hosts {
		there[h.Name] = true
	}
	var missing []string
	for _, name := range p.r.Spec.Hosts {
		if !there[string(name)] {
			missing = append(missing, string(name))
		}
	}
	return missing
}

func (p *planner) judge(v *hostView, sticky map[string]string) {
	finished := p.r.Status.Phase.Finished()
	v.settled = finished || p.waveStatus(v.wave).soaked()
	v.judge(p.now, p.waveStatus(v.wave).soaking(), p.frozen)
	if !v.mine || v.intent != nfv1.IntentDeploy {
		return
	}
	if attempt := v.host.Spec.Desired.Attempt; attempt < p.status.Attempt {
		v.retry = v.failReason != "" && !finished
		return
	}
	if reason, ok := sticky[v.wave+"/"+v.host.Name]; ok && v.failReason == "" {
		v.failReason, v.failMessage = reason, "failed earlier in this attempt"
	}
}

// stickyFailures are the failures recorded for this attempt: a late success does not
// take them back.
func (p *planner) stickyFailures() map[string]string {
	reasons := map[string]string{}
	for _, f := range p.status.Failures {
		reasons[f.Wave+"/"+string(f.Host)] = f.Reason
	}
	out := map[string]string{}
	for _, w := range p.status.Waves {
		for _, h := range w.FailedHosts {
			key := w.Name + "/" + string(h)
			out[key] = ReasonTimeout
			if r := reasons[key]; r != "" {
				out[key] = r
			}
		}
	}
	return out
}

// waveStatus is the status of a wave, or nil if there is none of that name.
func (p *planner) waveStatus(name string) *waveStatus {
	for i := range p.status.Waves {
		if w := &p.status.Waves[i]; w.Name == name {
			return (*waveStatus)(w)
		}
	}
	return nil
}

type waveStatus nfv1.WaveStatus

func (w *waveStatus) soaked() bool  { return w != nil && !w.SoakedAt.IsZero() }
func (w *waveStatus) soaking() bool { return w != nil && !w.FinishedAt.IsZero() && w.SoakedAt.IsZero() }

// pinnedRelease is the release of the snapshot if it is the one that the rollout began
// with, or any before it began.
func (p *planner) pinnedRelease() *nfv1.Release {
	rel := p.s.Release
	if rel == nil || (p.status.ReleaseUID != "" && p.status.ReleaseUID != rel.UID) {
		return nil
	}
	return rel
}

// look makes sure that the rollout is planned again at that time.
func (p *planner) look(at time.Time) {
	if at.IsZero() {
		return
	}
	if p.recheck.IsZero() || at.Before(p.recheck) {
		p.recheck = at
	}
}

// lookAtDeadlines plans again when the first host in flight times out.
func (p *planner) lookAtDeadlines() {
	for _, v := range p.views {
		if v.inFlight() && !p.frozen {
			p.look(v.deadline)
		}
	}
}

func (p *planner) hostNote(v *hostView, reason, format string, args ...any) {
	p.notes = append(p.notes, Note{Wave: v.wave, Host: v.host.Name, Reason: reason, Message: fmt.Sprintf(format, args...)})
}

// phase settles where the rollout stands. The reason and message become the condition
// and the first note.
func (p *planner) phase(phase nfv1.RolloutPhase, reason, format string, args ...any) bool {
	p.status.Phase = phase
	n := Note{Reason: reason, Message: truncate(fmt.Sprintf(format, args...), maxMessage)}
	p.status.Message = n.Message
	p.notes = append([]Note{n}, p.notes...)
	return true
}

func (p *planner) stamp() metav1.Time { return metav1.NewTime(p.now.Truncate(time.Second)) }
