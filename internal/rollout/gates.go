// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package rollout

import (
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

// VerdictMaxAge is how old the verdict about a release may be when a wave is ready to
// start. An older one is taken anew first.
const VerdictMaxAge = time.Minute

// block says what holds a wave or a host, and which phase the rollout is in for it.
type block struct {
	Note
	phase nfv1.RolloutPhase
}

func blocked(reason, format string, args ...any) *block {
	return &block{phase: nfv1.RolloutPhaseBlocked, Note: Note{Reason: reason, Message: fmt.Sprintf(format, args...)}}
}

func progressing(reason, format string, args ...any) *block {
	return &block{phase: nfv1.RolloutPhaseProgressing, Note: Note{Reason: reason, Message: fmt.Sprintf(format, args...)}}
}

// waveInput is what the gates of a wave judge by.
type waveInput struct {
	p          *planner
	wave       wave
	candidates []*hostView
}

// waveGates must all be open before a wave starts. That the earlier waves are done and
// soaked is how stageWaves gets to a wave at all.
func waveGates() []func(waveInput) *block {
	return []func(waveInput) *block{
		gateEmptyWave,    // a selector that matches nothing is a typo, not "no canary"
		gateOlderRelease, // never go backwards by accident
		gateHolder,       // an older rollout has the hosts
		gateApproval,     // a person says yes
	}
}

func gateEmptyWave(in waveInput) *block {
	if in.wave.Selector == nil || len(in.candidates) > 0 {
		return nil
	}
	matches, skipped := 0, 0
	for _, v := range in.p.views {
		if !v.target || !in.wave.selector.Matches(labels.Set(v.host.Labels)) {
			continue
		}
		matches++
		if !v.mine {
			skipped++
		}
	}
	switch {
	case matches == 0:
		return blocked(ReasonEmptyWave, "wave %s: its selector matches none of the rollout's targets; label a host, or cancel and correct the selector",
			in.wave.Name)
	case skipped == matches:
		return blocked(ReasonEmptyWave, "wave %s: its selector matches %s, of which none can be moved (%s)",
			in.wave.Name, plural(matches, "target"), in.p.targetSummary())
	default:
		return nil
	}
}

// gateOlderRelease holds the rollout while a target runs a newer release.
func gateOlderRelease(in waveInput) *block {
	p := in.p
	if p.r.Spec.OlderRelease == nfv1.OlderReleaseAllow || p.s.Release.Spec.Source == nil {
		return nil
	}
	ours := p.s.Release.Spec.Source.LastModified
	if ours.IsZero() {
		return nil
	}
	var newer []string
	for _, v := range p.views {
		if v.unassigned() && p.runsSince(v).After(ours.Time) {
			newer = append(newer, v.host.Name)
		}
	}
	if len(newer) == 0 {
		return nil
	}
	return blocked(ReasonOlderRelease, "release %s of %s is older than what %s (%s); set olderRelease: Allow in a new rollout to go back on purpose",
		p.r.Spec.Release, ours.UTC().Format(time.RFC3339), verb(len(newer), "target runs", "targets run"), sample(newer))
}

// runsSince is the age of the release that the host runs, or zero if it is not known.
func (p *planner) runsSince(v *hostView) time.Time {
	d, running := v.host.Spec.Desired, v.host.Status.Running
	if d == nil || d.Release == nil || running == nil || running.StorePath != d.StorePath {
		return time.Time{}
	}
	rel := p.s.Releases[d.Release.UID]
	if rel == nil || rel.Spec.Source == nil {
		return time.Time{}
	}
	return rel.Spec.Source.LastModified.Time
}

// gateHolder holds a wave while older rollouts hold all of its candidates.
func gateHolder(in waveInput) *block {
	var holder *nfv1.Rollout
	for _, v := range in.candidates {
		h := in.p.heldBy(v)
		if h == nil {
			return nil
		}
		holder = h
	}
	if holder == nil {
		return nil
	}
	return heldBlock(in.wave.Name, len(in.candidates), holder)
}

func heldBlock(wave string, n int, holder *nfv1.Rollout) *block {
	where := ""
	if wave != "" {
		where = "wave " + wave + ": "
	}
	return blocked(ReasonHeld, "%s%s held by the older rollout %s (%s); wait, or end it: kubectl patch rollouts.nixfleet.io %s -n %s --type merge -p '{\"spec\":{\"state\":\"Cancelled\"}}'",
		where, verb(n, "host is", "hosts are"), holder.Name, phaseName(holder.Status.Phase), holder.Name, holder.Namespace)
}

// heldBy is the other rollout that holds the host, or nil if this one may have it.
func (p *planner) heldBy(v *hostView) *nfv1.Rollout {
	if h := p.holders.of(v.host); h != nil && h.UID != p.r.UID {
		return h
	}
	return nil
}

func gateApproval(in waveInput) *block {
	if in.wave.Approval != nfv1.WaveApprovalRequired || slices.Contains(in.p.r.Spec.ApprovedWaves, in.wave.Name) || len(in.candidates) == 0 {
		return nil
	}
	b := blocked(ReasonAwaitingApproval, "wave %s: %s for approval; add %q to spec.approvedWaves",
		in.wave.Name, verb(len(in.candidates), "host waits", "hosts wait"), in.wave.Name)
	b.phase = nfv1.RolloutPhaseAwaitingApproval
	return b
}

// gateVerified holds a wave until its release was found good no longer than
// VerdictMaxAge before everything else let the wave start. What a cache served when the
// rollout began says little about what it serves a week later.
func gateVerified(in waveInput, readyAt time.Time) *block {
	rel := in.p.s.Release
	if rel.Spec.Verification == nfv1.VerificationSkip || len(in.candidates) == 0 {
		return nil
	}
	c := meta.FindStatusCondition(rel.Status.Conditions, nfv1.ConditionVerified)
	switch {
	case c == nil || rel.Status.ObservedGeneration != rel.Generation:
		return blocked(ReasonReleaseNotVerified, "wave %s: release %s has not been checked yet", in.wave.Name, rel.Name)
	case c.Status != metav1.ConditionTrue:
		return blocked(ReasonReleaseNotVerified, "wave %s: release %s is not verified: %s: %s", in.wave.Name, rel.Name, c.Reason, c.Message)
	case readyAt.Sub(rel.Status.VerifiedAt.Time) >= VerdictMaxAge:
		return progressing(ReasonReleaseNotVerified, "wave %s: release %s was found good at %s and is checked anew before the wave starts",
			in.wave.Name, rel.Name, rel.Status.VerifiedAt.UTC().Format(time.RFC3339))
	default:
		return nil
	}
}

// hostInput is what the gates of a host judge by.
type hostInput struct {
	p    *planner
	wave wave
	view *hostView

	// unavailable hosts of the wave there are, of at most max.
	unavailable, max int32
}

// hostGates must all be open before a host of an open wave is assigned. The gates that
// make it no candidate at all are in skipReason.
func hostGates() []func(hostInput) *block {
	return []func(hostInput) *block{
		gateHostHolder,   // an older rollout has the host
		gateHostOffline,  // nobody could take the assignment up
		gateHostCapacity, // as many hosts as may be are unavailable
	}
}

func gateHostHolder(in hostInput) *block {
	holder := in.p.heldBy(in.view)
	if holder == nil {
		return nil
	}
	return heldBlock(in.wave.Name, 1, holder)
}

// gateHostOffline keeps offline hosts from being assigned. Under the policy Defer its
// block holds the host and not the wave.
func gateHostOffline(in hostInput) *block {
	if in.view.online {
		return nil
	}
	b := blocked(ReasonOffline, "wave %s: waits for offline hosts such as %s, because offlinePolicy is Wait", in.wave.Name, in.view.host.Name)
	if in.p.r.Spec.OfflinePolicy != nfv1.OfflinePolicyWait {
		b.phase, b.Message = "", "offline; it is assigned when it returns"
	}
	return b
}

func gateHostCapacity(in hostInput) *block {
	if in.view.unavailable() || in.unavailable+1 <= in.max {
		return nil
	}
	return blocked(ReasonCapacity, "wave %s: %s unavailable and maxUnavailable is %d; the wave goes on when they recover",
		in.wave.Name, verb(int(in.unavailable), "host is", "hosts are"), in.max)
}
