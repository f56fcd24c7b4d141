// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package rollout

import (
	"fmt"
	"slices"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

func (p *planner) stageReverting() bool {
	return p.reverting && p.revert()
}

// isReverting reports whether the rollout is on the way back. The hosts say so too: the
// phase may be another one for a while, as when the fleet cannot be reached.
func isReverting(s Snapshot) bool {
	switch {
	case s.Rollout.Status.Phase == nfv1.RolloutPhaseReverting:
		return true
	case s.Rollout.Status.Phase.Finished():
		return false
	}
	return slices.ContainsFunc(s.Hosts, func(h *nfv1.Host) bool {
		d := h.Spec.Desired
		return d != nil && d.Intent == nfv1.IntentRevert && d.Rollout != nil && d.Rollout.UID == s.Rollout.UID
	})
}

// revert sends every host that the rollout assigned back to what it ran before, the
// last wave first, past every gate but capacity and holder.
func (p *planner) revert() bool {
	for i := len(p.waves); i >= 0; i-- {
		name := "" // hosts that were assigned outside any wave go first
		if i < len(p.waves) {
			name = p.waves[i].Name
		}
		done, held := p.revertWave(name, p.capacityOf(name))
		if held != nil {
			return p.phase(nfv1.RolloutPhaseReverting, held.Reason, "%s", held.Message)
		}
		if !done {
			break
		}
	}
	p.lookAtDeadlines()
	return p.revertPhase()
}

func (p *planner) capacityOf(name string) int32 {
	for i := range p.status.Waves {
		if p.status.Waves[i].Name == name {
			return p.status.Waves[i].MaxUnavailable
		}
	}
	return int32(len(p.views)) //nolint:gosec // a namespace has far fewer hosts than 2^31
}

// revertWave sends the hosts of a wave back and reports whether the wave is done, and
// what holds it if it cannot be for as long as an older rollout has one of its hosts.
// Damaged and offline hosts do not wait for capacity, and offline ones hold nothing.
func (p *planner) revertWave(name string, capacity int32) (done bool, held *block) {
	var members []*hostView
	var unavailable int32
	for _, v := range p.views {
		if v.mine && v.wave == name && v.intent != nfv1.IntentNone {
			members = append(members, v)
			if v.unavailable() {
				unavailable++
			}
		}
	}
	sortHosts(p.r.UID, members, true)
	done = true
	for _, v := range members {
		switch {
		case v.intent == nfv1.IntentRevert:
		case p.heldBy(v) != nil:
			held = heldBlock(name, 1, p.heldBy(v))
			p.hostNote(v, ReasonHeld, "%s", held.Message)
		case v.host.Spec.Desired.PreviousStorePath == "":
			p.hostNote(v, ReasonNoPrevious, "it is not known what the host ran before; it stays as it is")
			p.assign(v, nfv1.IntentNone, name, "")
		case v.unavailable() || v.failReason != "" || !v.online:
			p.assign(v, nfv1.IntentRevert, name, v.host.Spec.Desired.PreviousStorePath)
		case unavailable+1 <= capacity:
			unavailable++
			p.assign(v, nfv1.IntentRevert, name, v.host.Spec.Desired.PreviousStorePath)
		default:
			p.hostNote(v, ReasonCapacity, "%s unavailable and maxUnavailable is %d", verb(int(unavailable), "host is", "hosts are"), capacity)
		}
		if v.online && (v.intent == nfv1.IntentDeploy || v.inFlight()) {
			done = false
		}
	}
	return done, held
}

func (p *planner) revertPhase() bool {
	var open, back, failed, stayed int32
	for _, v := range p.views {
		switch {
		case !v.mine || (v.intent == nfv1.IntentNone && v.host.Spec.Desired.PreviousStorePath != ""):
		case v.intent == nfv1.IntentNone:
			stayed++
		case v.intent == nfv1.IntentRevert && v.failReason != "":
			failed++
		case v.intent == nfv1.IntentRevert && (v.succeeded() || !v.online):
			back++
		default:
			open++
		}
	}
	switch {
	case open > 0 || len(p.assignments) > 0:
		return p.phase(nfv1.RolloutPhaseReverting, ReasonReverting, "%s back on what they ran before, %d to go",
			verb(int(back), "host is", "hosts are"), open)
	case failed > 0:
		return p.phase(nfv1.RolloutPhaseFailed, ReasonRevertIncomplete, "%s could not be sent back; see their status", plural(failed, "host"))
	default:
		left := ""
		if stayed > 0 {
			left = fmt.Sprintf("; %d stayed, because it is not known what they ran", stayed)
		}
		return p.phase(nfv1.RolloutPhaseReverted, ReasonReverted, "%s sent back to what they ran before%s", verb(int(back), "host was", "hosts were"), left)
	}
}
