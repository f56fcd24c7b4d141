// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package rollout

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

// block says what holds a wave or a host, and which phase the rollout is in for it.
type block struct {
	Note
	phase nfv1.RolloutPhase
	at    time.Time
}

func blocked(reason, format string, args ...any) *block {
	return &block{phase: nfv1.RolloutPhaseBlocked, Note: Note{Reason: reason, Message: fmt.Sprintf(format, args...)}}
}

func progressing(format string, args ...any) *block {
	return &block{phase: nfv1.RolloutPhaseProgressing, Note: Note{Reason: ReasonProgressing, Message: fmt.Sprintf(format, args...)}}
}

// waveInput is what the gates of a wave judge by.
type waveInput struct {
	p          *planner
	wave       wave
	candidates []*hostView
}

// waveGates must all be open before a wave starts.
func waveGates() []func(waveInput) *block {
	return []func(waveInput) *block{
		gateEmptyWave,       // a selector that matches nothing is a typo, not "no canary"
		gateOlderRelease,    // never go backwards by accident
		gateHolder,          // an older rollout has the hosts
		gateApproval,        // a person says yes
		gateReleaseVerified, // every closure can be fetched and is signed
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
		return blocked(ReasonEmptyWave, "wave %s: its selector matches none of the rollout's targets; label a host, or cancel and correct the selector", in.wave.Name)
	case skipped == matches:
		return blocked(ReasonEmptyWave, "wave %s: its selector matches %d targets and none can be moved (%s)", in.wave.Name, matches, in.p.targetSummary())
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
	return blocked(ReasonOlderRelease, "release %s of %s is older than what %d targets run (%s); set olderRelease: Allow in a new rollout to go back on purpose",
		p.r.Spec.Release, ours.UTC().Format(time.RFC3339), len(newer), sample(newer))
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
	return blocked(ReasonHeld, "wave %s: %d hosts are held by the older rollout %s (%s); wait, or end it: kubectl patch rollouts.nixfleet.io %s -n %s --type merge -p '{\"spec\":{\"state\":\"Cancelled\"}}'",
		wave, n, holder.Name, phaseName(holder.Status.Phase), holder.Name, holder.Namespace)
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
	b := blocked(ReasonAwaitingApproval, "wave %s: %d hosts wait for approval; add %q to spec.approvedWaves", in.wave.Name, len(in.candidates), in.wave.Name)
	b.phase = nfv1.RolloutPhaseAwaitingApproval
	return b
}

func gateReleaseVerified(in waveInput) *block {
	rel := in.p.s.Release
	if rel.Spec.Verification == nfv1.VerificationSkip || len(in.candidates) == 0 {
		return nil
	}
	c := meta.FindStatusCondition(rel.Status.Conditions, nfv1.ConditionVerified)
	switch {
	case c == nil || rel.Status.ObservedGeneration != rel.Generation:
		return blocked(ReasonReleaseNotVerified, "wave %s: release %s has not been checked yet", in.wave.Name, rel.Name)
	case c.Status == metav1.ConditionTrue:
		return nil
	default:
		return blocked(ReasonReleaseNotVerified, "wave %s: release %s is not verified: %s: %s", in.wave.Name, rel.Name, c.Reason, c.Message)
	}
}

func sample(names []string) string {
	const most = 3
	slices.Sort(names)
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}
