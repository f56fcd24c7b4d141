// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package rollout

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

// pending is what a wave could not assign, and why.
type pending struct {
	offline, crowded int32
	hold             *block
}

// add counts a host that is held. The first block that holds the wave is its reason.
func (p *pending) add(b *block) {
	switch b.Reason {
	case ReasonOffline:
		p.offline++
	case ReasonCapacity:
		p.crowded++
	}
	if p.hold == nil && b.phase != "" {
		p.hold = b
	}
}

func (p pending) suffix() string {
	s := ""
	if p.crowded > 0 {
		s += fmt.Sprintf(", %d wait for capacity", p.crowded)
	}
	if p.offline > 0 {
		s += fmt.Sprintf(", %d offline", p.offline)
	}
	return s
}

// assignWave assigns the hosts of a wave that may move now: within its size, its
// capacity and the policy for offline hosts.
func (p *planner) assignWave(w wave, st *nfv1.WaveStatus) pending {
	pool := p.candidates(w)
	sortHosts(p.r.UID, pool, w.last)
	// Its own failed hosts have their places, before any other host takes one: a canary
	// that is tried again is the same canary.
	slices.SortStableFunc(pool, func(a, b *hostView) int { return cmp.Compare(rankRetry(a, w), rankRetry(b, w)) })
	places := int32(len(pool)) //nolint:gosec // a namespace has far fewer hosts than 2^31
	if !w.last {
		places = p.count(w.Name).places(st.Size)
	}
	unavailable := p.unavailableIn(w, pool)
	var out pending
	for _, v := range pool {
		foreign := v.retry && v.wave != w.Name // has a place of its own, in a wave that is done
		if places == 0 && !foreign {
			continue
		}
		if b := p.hostBlock(hostInput{p: p, wave: w, view: v, unavailable: unavailable, max: st.MaxUnavailable}); b != nil {
			out.add(b)
			continue
		}
		if !v.unavailable() {
			unavailable++
		}
		if !foreign {
			places--
		}
		p.assign(v, nfv1.IntentDeploy, w.Name, v.path)
	}
	return out
}

func rankRetry(v *hostView, w wave) int {
	if v.retry && v.wave == w.Name {
		return 0
	}
	return 1
}

// hostBlock says what keeps a candidate of an open wave from being assigned now, or nil.
func (p *planner) hostBlock(in hostInput) *block {
	for _, gate := range hostGates() {
		if b := gate(in); b != nil {
			b.Wave, b.Host = in.wave.Name, in.view.host.Name
			p.notes = append(p.notes, b.Note)
			return b
		}
	}
	return nil
}

// unavailableIn counts the hosts that spend the capacity of a wave: its members, and
// those that it could take.
func (p *planner) unavailableIn(w wave, pool []*hostView) int32 {
	var n int32
	for _, v := range p.views {
		if v.member() && v.wave == w.Name && v.unavailable() {
			n++
		}
	}
	for _, v := range pool {
		if v.unavailable() {
			n++
		}
	}
	return n
}

// assign writes a new value of spec.desired into the decision, and lets the view of the
// host be as it will be after the write, so that the status counts it.
func (p *planner) assign(v *hostView, intent nfv1.Intent, wave string, path nfv1.StorePath) {
	d := p.nextDesired(v.host)
	d.Intent, d.Wave, d.StorePath = intent, wave, path
	switch intent {
	case nfv1.IntentDeploy:
		d.Caches = cacheURLs(p.s.Release)
	case nfv1.IntentRevert:
		d.Caches = d.PreviousCaches
	case nfv1.IntentNone:
		d.StorePath, d.Caches = "", nil
	}
	p.assignments = append(p.assignments, Assignment{Host: v.host, Desired: d})
	v.mine, v.intent, v.wave, v.retry = true, intent, wave, false
	v.outcome, v.started, v.failReason, v.failMessage = "", false, "", ""
	v.deadline = p.now.Add(time.Duration(p.r.Spec.HostTimeoutSeconds) * time.Second)
}

// nextDesired is the next assignment of a host, with what is carried over from the
// current one. What the host ran before is recorded when the rollout first assigns it
// and kept for as long as the rollout has it: an attempt that failed must not become
// the place to go back to.
func (p *planner) nextDesired(h *nfv1.Host) nfv1.Desired {
	d := nfv1.Desired{
		Revision:     nextRevision(h),
		Rollout:      &nfv1.ObjectReference{Name: p.r.Name, UID: p.r.UID},
		Attempt:      p.r.Spec.Attempt,
		AssignedTime: p.stamp(),
	}
	if rel := p.s.Release; rel != nil {
		d.Release = &nfv1.ObjectReference{Name: rel.Name, UID: rel.UID}
	}
	old := h.Spec.Desired
	if old != nil {
		d.OverrideID = old.OverrideID
	}
	if old != nil && old.Rollout != nil && old.Rollout.UID == p.r.UID {
		d.PreviousStorePath, d.PreviousCaches = old.PreviousStorePath, old.PreviousCaches
		if d.Release == nil {
			d.Release = old.Release
		}
		return d
	}
	if h.Status.Running != nil {
		d.PreviousStorePath = h.Status.Running.StorePath
	}
	if old != nil {
		d.PreviousCaches = old.Caches
	}
	return d
}

// nextRevision is above everything that the host or its agent has seen, so that an
// agent that outlived a restored backup takes it.
func nextRevision(h *nfv1.Host) int64 {
	last := h.Status.ObservedRevision
	if d := h.Spec.Desired; d != nil {
		last = max(last, d.Revision)
	}
	if a := h.Status.Attempt; a != nil {
		last = max(last, a.Revision)
	}
	return last + 1
}

func cacheURLs(rel *nfv1.Release) []nfv1.CacheURL {
	out := make([]nfv1.CacheURL, 0, len(rel.Spec.Caches))
	for _, c := range rel.Spec.Caches {
		out = append(out, c.URL)
	}
	return out
}

// withdraw takes back assignments that the host has not begun: those of offline hosts,
// or of all. No host shall wake up to a release that was stopped.
func (p *planner) withdraw(offlineOnly bool) {
	for _, v := range p.views {
		if !v.inFlight() || v.started || (offlineOnly && v.online) {
			continue
		}
		p.hostNote(v, ReasonWithdrawn, "had not begun; its assignment is taken back")
		p.assign(v, nfv1.IntentNone, v.wave, "")
	}
}

func (p *planner) inFlight() int32 {
	var n int32
	for _, v := range p.views {
		if v.inFlight() {
			n++
		}
	}
	return n
}
