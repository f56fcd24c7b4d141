// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package rollout

import (
	"fmt"

	"k8s.io/apimachinery/pkg/api/meta"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

// stageFinished leaves a rollout that is over as it is, but for the hosts that it
// assigned while they were offline: they converge later, and may fail.
func (p *planner) stageFinished() bool {
	stored := p.r.Status
	if !stored.Phase.Finished() {
		return false
	}
	reason := string(stored.Phase)
	if c := meta.FindStatusCondition(stored.Conditions, nfv1.ConditionReady); c != nil {
		reason = c.Reason
	}
	if p.invalid == nil {
		p.lookAtDeadlines()
	}
	return p.phase(stored.Phase, reason, "%s", stored.Message)
}

func (p *planner) stageInvalid() bool {
	if p.invalid == nil {
		return false
	}
	return p.phase(nfv1.RolloutPhaseFailed, ReasonInvalidSelector, "%s; create another rollout", p.invalid)
}

// stageEnding lets hosts in flight finish after a cancellation or a deletion.
func (p *planner) stageEnding() bool {
	if !ending(p.r) {
		return false
	}
	p.withdraw(false)
	p.lookAtDeadlines()
	if n := p.inFlight(); n > 0 {
		p.useRelease = true
		return p.phase(nfv1.RolloutPhaseCancelling, ReasonCancelling, "%s first; nothing more is assigned",
			verb(int(n), "host in flight finishes", "hosts in flight finish"))
	}
	if n := len(p.assignments); n > 0 {
		return p.phase(nfv1.RolloutPhaseCancelling, ReasonCancelling, "%s back",
			verb(n, "assignment that had not begun is taken", "assignments that had not begun are taken"))
	}
	c := p.hostCounts()
	return p.phase(nfv1.RolloutPhaseCancelled, ReasonCancelled, "cancelled; %d of %s run release %s",
		c.Succeeded, plural(c.Total, "host"), p.r.Spec.Release)
}

// stageUnreachable holds everything while most of the fleet is silent. Timeouts stand
// still: an outage of the gateway is no failure of the hosts.
func (p *planner) stageUnreachable() bool {
	if !p.frozen {
		return false
	}
	p.useRelease = p.status.ReleaseUID != ""
	return p.phase(nfv1.RolloutPhaseBlocked, ReasonFleetUnreachable,
		"%d of %d online hosts went offline within %s; nothing is assigned and no host times out until they return. Check the agent gateway and the network",
		p.lost.lost, p.lost.online, p.s.OfflineWindow)
}

// stageReleaseGone ends a rollout whose release was deleted or made anew: the same
// release never comes back.
func (p *planner) stageReleaseGone() bool {
	pinned := p.status.ReleaseUID != ""
	switch {
	case pinned && p.pinnedRelease() == nil:
		p.stalled = true
		p.lookAtDeadlines()
		if n := p.inFlight(); n > 0 {
			return p.phase(nfv1.RolloutPhaseBlocked, ReasonReleaseGone, "release %s was deleted or made anew; %s",
				p.r.Spec.Release, verb(int(n), "host in flight finishes", "hosts in flight finish"))
		}
		return p.phase(nfv1.RolloutPhaseFailed, ReasonReleaseGone, "release %s was deleted or made anew; create another rollout", p.r.Spec.Release)
	case !pinned && p.s.Release != nil && !p.s.Release.DeletionTimestamp.IsZero():
		p.stalled = true
		return p.phase(nfv1.RolloutPhaseBlocked, ReasonReleaseGone, "release %s is being deleted; create another release and rollout",
			p.r.Spec.Release)
	default:
		return false
	}
}

// stageFailures stops a rollout when more hosts of a wave failed than its threshold
// allows. Hosts in flight finish; offline hosts that have not begun are released.
func (p *planner) stageFailures() bool {
	st := p.exceeded()
	if st == nil {
		return false
	}
	p.useRelease = true
	p.withdraw(true)
	p.lookAtDeadlines()
	n := p.inFlight()
	why := fmt.Sprintf("wave %s: %d of %s failed, more than failureThreshold allows (%d)", st.Name, st.Failed, plural(st.Size, "host"), st.Threshold)
	switch {
	case p.r.Spec.OnFailure != nfv1.OnFailureRevert:
		p.stalled = true
		return p.phase(nfv1.RolloutPhasePaused, ReasonTooManyFailures,
			"%s%s. Raise attempt to try the failed hosts again, raise failureThreshold to go on without them, or cancel", why, finishing(n))
	case n > 0:
		return p.phase(nfv1.RolloutPhaseProgressing, ReasonTooManyFailures,
			"%s%s, then every host is sent back", why, finishing(n))
	default:
		return p.revert()
	}
}

// exceeded is the first wave with more failures than its threshold, or nil.
func (p *planner) exceeded() *nfv1.WaveStatus {
	p.refreshWaves()
	for i := range p.status.Waves {
		if st := &p.status.Waves[i]; !st.StartedAt.IsZero() && st.Failed > st.Threshold {
			return st
		}
	}
	return nil
}

func (p *planner) stagePaused() bool {
	if p.r.Spec.State != nfv1.RolloutStatePaused {
		return false
	}
	p.useRelease = p.status.ReleaseUID != ""
	p.withdraw(true)
	p.lookAtDeadlines()
	return p.phase(nfv1.RolloutPhasePaused, ReasonPaused, "paused by spec.state; %d in flight finish. Set spec.state to Running to go on",
		p.inFlight())
}

func (p *planner) stageReleaseReady() bool {
	if p.s.Release != nil {
		return false
	}
	return p.phase(nfv1.RolloutPhaseBlocked, ReasonReleaseNotFound, "there is no release %s in namespace %s yet", p.r.Spec.Release, p.r.Namespace)
}
