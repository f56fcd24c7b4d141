// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package preview

import (
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/rollout"
)

// maxSteps bounds a forecast: a wave that takes one host of ten thousand at a time is
// understood long before its end.
const maxSteps = 1000

// Play forecasts a rollout. The snapshot is not changed. order says whether the UID of
// the rollout is the one that it has, or will be given another when it is created.
func Play(s rollout.Snapshot, now time.Time, order Order) Forecast {
	p := newPlay(s, now, order)
	for step := range maxSteps {
		d := rollout.Plan(p.s, p.now)
		if step == 0 {
			p.begin(d)
		}
		p.f.End = standing(d)
		p.enter(d)
		changed := p.carryOut(d)
		switch {
		case changed || p.letPass(d):
		case d.Status.Phase == nfv1.RolloutPhaseSoaking && d.RecheckAfter > 0:
			p.now = p.now.Add(d.RecheckAfter)
			p.f.WaitSeconds += int64(d.RecheckAfter / time.Second)
		default:
			return p.result()
		}
	}
	p.f.Truncated = true
	return p.result()
}

// play is a rollout that is played: copies of what changes, and a clock.
type play struct {
	s     rollout.Snapshot
	now   time.Time
	f     Forecast
	hosts map[string]int
}

func newPlay(s rollout.Snapshot, now time.Time, order Order) *play {
	r := s.Rollout.DeepCopy()
	p := &play{s: s, now: now, hosts: make(map[string]int, len(s.Hosts))}
	p.f = Forecast{Namespace: r.Namespace, Name: r.Name, Release: r.Spec.Release, Order: order, Waves: []Wave{}}
	p.s.Rollout = r
	p.s.Hosts = slices.Clone(s.Hosts)
	for i, h := range p.s.Hosts {
		p.hosts[h.Name] = i
	}
	p.s.Rollouts = slices.Clone(s.Rollouts)
	p.s.Rollouts = append(slices.DeleteFunc(p.s.Rollouts, func(other *nfv1.Rollout) bool { return other.UID == r.UID }), r)
	if s.Release != nil {
		p.s.Release = s.Release.DeepCopy()
	}
	return p
}

// begin notes where the rollout stands before anything was played.
func (p *play) begin(d rollout.Decision) {
	p.f.Now = standing(d)
	for _, n := range d.Notes {
		if n.Host != "" && keeps(n.Reason) {
			p.f.Kept = append(p.f.Kept, Kept{Host: n.Host, Reason: n.Reason, Message: n.Message})
		}
	}
	for _, w := range d.Status.Waves {
		p.f.Waves = append(p.f.Waves, p.newWave(w.Name))
	}
	for _, h := range p.s.Hosts {
		if d := h.Spec.Desired; mine(p.s.Rollout, d) && d.Intent == nfv1.IntentDeploy {
			if w := p.wave(d.Wave); w != nil {
				w.Moved = append(w.Moved, h.Name)
			}
		}
	}
	for i := range p.f.Waves {
		slices.Sort(p.f.Waves[i].Moved)
	}
}

// keeps reports whether a note of that reason says that its host takes no part.
func keeps(reason string) bool {
	switch reason {
	case rollout.ReasonDeleting, rollout.ReasonLifecycle, rollout.ReasonClosureMissing:
		return true
	default:
		return false
	}
}

func mine(r *nfv1.Rollout, d *nfv1.Desired) bool {
	return d != nil && d.Rollout != nil && d.Rollout.UID == r.UID
}

func (p *play) newWave(name string) Wave {
	w := Wave{Name: name, Approval: ApprovalNone}
	for _, spec := range p.s.Rollout.Spec.Strategy.Waves {
		if spec.Name != name {
			continue
		}
		w.SoakSeconds = spec.SoakSeconds
		if spec.Approval == nfv1.WaveApprovalRequired {
			w.Approval = ApprovalNeeded
		}
		if slices.Contains(p.s.Rollout.Spec.ApprovedWaves, name) && w.Approval == ApprovalNeeded {
			w.Approval = ApprovalGiven
		}
	}
	return w
}

func (p *play) wave(name string) *Wave {
	for i := range p.f.Waves {
		if p.f.Waves[i].Name == name {
			return &p.f.Waves[i]
		}
	}
	return nil
}

// enter notes the numbers of the waves that a decision starts.
func (p *play) enter(d rollout.Decision) {
	for _, st := range d.Status.Waves {
		w := p.wave(st.Name)
		if st.StartedAt.IsZero() || w.Reached {
			continue
		}
		w.Reached, w.Size, w.MaxUnavailable, w.Threshold = true, st.Size, st.MaxUnavailable, st.Threshold
		w.Candidates = rollout.Candidates(p.s, p.now, st.Name)
	}
}

// carryOut does what was decided, and lets the hosts do their part. It answers whether
// anything changed.
func (p *play) carryOut(d rollout.Decision) bool {
	changed := !sameStanding(&p.s.Rollout.Status, &d.Status)
	p.s.Rollout.Status = d.Status
	batches := map[string][]string{}
	for _, a := range d.Assignments {
		changed = true
		i := p.hosts[a.Host.Name]
		h := p.s.Hosts[i].DeepCopy()
		h.Spec.Desired = a.Desired.DeepCopy()
		p.s.Hosts[i] = h
		switch {
		case a.Desired.Intent == nfv1.IntentRevert:
			p.f.SentBack = append(p.f.SentBack, h.Name)
		case a.Desired.Intent == nfv1.IntentDeploy && a.Desired.Wave == "":
			p.f.Late = append(p.f.Late, h.Name)
		case a.Desired.Intent == nfv1.IntentDeploy:
			batches[a.Desired.Wave] = append(batches[a.Desired.Wave], h.Name)
		}
	}
	for name, hosts := range batches {
		w := p.wave(name)
		w.Batches = append(w.Batches, hosts)
	}
	return p.succeed() || changed
}

// sameStanding compares what makes a difference to the next decision.
func sameStanding(a, b *nfv1.RolloutStatus) bool {
	if a.Phase != b.Phase || a.Message != b.Message || a.Attempt != b.Attempt || len(a.Waves) != len(b.Waves) {
		return false
	}
	for i := range a.Waves {
		x, y := &a.Waves[i], &b.Waves[i]
		if !x.StartedAt.Equal(&y.StartedAt) || !x.FinishedAt.Equal(&y.FinishedAt) || !x.SoakedAt.Equal(&y.SoakedAt) || !x.ReadyAt.Equal(&y.ReadyAt) {
			return false
		}
	}
	return true
}

// succeed lets every host that was assigned something report that it runs it and is
// healthy, but for those that were assigned for their return.
func (p *play) succeed() bool {
	changed := false
	for i, h := range p.s.Hosts {
		d := h.Spec.Desired
		if !mine(p.s.Rollout, d) || d.Intent == nfv1.IntentNone || ended(h) || d.Wave == "" && !online(h) {
			continue
		}
		changed = true
		c := h.DeepCopy()
		c.Status.ObservedRevision, c.Status.Phase = d.Revision, nfv1.HostPhaseIdle
		c.Status.Attempt = &nfv1.HostAttempt{
			Revision: d.Revision, StorePath: d.StorePath, RolloutUID: d.Rollout.UID,
			Outcome: nfv1.AttemptSucceeded, Reason: nfv1.ReasonCompleted,
		}
		c.Status.Running = &nfv1.SystemGeneration{StorePath: d.StorePath}
		for _, kind := range []string{nfv1.ConditionHealthy, nfv1.ConditionOnline} {
			meta.SetStatusCondition(&c.Status.Conditions, metav1.Condition{
				Type: kind, Status: metav1.ConditionTrue, Reason: nfv1.ReasonCompleted, LastTransitionTime: metav1.NewTime(p.now),
			})
		}
		p.s.Hosts[i] = c
	}
	return changed
}

// ended reports whether the host has reported the end of its assignment.
func ended(h *nfv1.Host) bool {
	d, a := h.Spec.Desired, h.Status.Attempt
	return a != nil && a.Revision == d.Revision && a.StorePath == d.StorePath && a.RolloutUID == d.Rollout.UID && a.Outcome != ""
}

func online(h *nfv1.Host) bool {
	return meta.IsStatusConditionTrue(h.Status.Conditions, nfv1.ConditionOnline)
}

// letPass does what people and other controllers have to do for the rollout to go on,
// and says so. It answers false if there is nothing of that kind.
func (p *play) letPass(d rollout.Decision) bool {
	r := p.s.Rollout
	switch {
	case d.Status.Phase == nfv1.RolloutPhaseAwaitingApproval:
		for _, w := range d.Status.Waves {
			if w.StartedAt.IsZero() && !slices.Contains(r.Spec.ApprovedWaves, w.Name) {
				r.Spec.ApprovedWaves = append(r.Spec.ApprovedWaves, w.Name)
				p.f.Assumed = append(p.f.Assumed, fmt.Sprintf("somebody approves wave %s", w.Name))
				return true
			}
		}
	case standing(d).Reason == rollout.ReasonReleaseNotVerified:
		return p.verify()
	}
	return false
}

// verify lets the release controller look at the release anew, and find what it found
// before. What it has never looked at is assumed to be good.
func (p *play) verify() bool {
	rel := p.s.Release
	c := meta.FindStatusCondition(rel.Status.Conditions, nfv1.ConditionVerified)
	current := c != nil && rel.Status.ObservedGeneration == rel.Generation
	switch {
	case current && c.Status != metav1.ConditionTrue:
		return false
	case current:
	default:
		p.f.Assumed = append(p.f.Assumed, fmt.Sprintf("release %s is found good", rel.Name))
	}
	rel.Status.ObservedGeneration = rel.Generation
	meta.SetStatusCondition(&rel.Status.Conditions, metav1.Condition{
		Type: nfv1.ConditionVerified, Status: metav1.ConditionTrue, Reason: nfv1.ReasonVerified, LastTransitionTime: metav1.NewTime(p.now),
	})
	if rel.Status.VerifiedAt.Time.Equal(p.now) {
		return false
	}
	rel.Status.VerifiedAt = metav1.NewTime(p.now)
	p.s.Releases = withRelease(p.s.Releases, rel)
	return true
}

func withRelease(all map[types.UID]*nfv1.Release, rel *nfv1.Release) map[types.UID]*nfv1.Release {
	out := make(map[types.UID]*nfv1.Release, len(all)+1)
	for uid, r := range all {
		out[uid] = r
	}
	out[rel.UID] = rel
	return out
}

// result takes the order back where it is not known.
func (p *play) result() Forecast {
	if p.f.Order == OrderKnown {
		return p.f
	}
	for i := range p.f.Waves {
		w := &p.f.Waves[i]
		if len(w.Batches) != 1 || len(w.Batches[0]) != len(w.Candidates) {
			w.Batches = nil
			continue
		}
		slices.Sort(w.Batches[0])
	}
	return p.f
}
