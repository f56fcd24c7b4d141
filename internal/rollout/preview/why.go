// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package preview

import (
	"fmt"
	"slices"
	"time"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/rollout"
)

// Answer says where a rollout stands with a host.
type Answer struct {
	// Namespace, Rollout and Host say what the answer is about.
	Namespace string `json:"namespace"`
	Rollout   string `json:"rollout"`
	Host      string `json:"host"`

	// Moves says what the rollout does with the host.
	Moves Moves `json:"moves"`

	// Reasons say why, the most telling first. Empty for a host that was moved.
	Reasons []Reason `json:"reasons,omitempty"`

	// Place is where the host is in the forecast; absent if the rollout does not reach it.
	Place *Place `json:"place,omitempty"`

	// Now is where the rollout itself stands.
	Now Standing `json:"now"`
}

// Moves says what a rollout does with a host.
type Moves string

const (
	// MovesNotSelected means that the host is none of the rollout's targets.
	MovesNotSelected Moves = "NotSelected"
	// MovesNever means that the host is a target and is kept out.
	MovesNever Moves = "KeptOut"
	// MovesLater means that the host waits for its assignment.
	MovesLater Moves = "Waiting"
	// MovesNow means that the rollout would assign the host right now.
	MovesNow Moves = "Now"
	// MovesAssigned means that the host has an assignment of the rollout.
	MovesAssigned Moves = "Assigned"
)

// Reason is why, by a word that does not change and a sentence with the numbers.
type Reason struct {
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

// Place is the place of a host in a forecast.
type Place struct {
	// Wave is the wave of the host; empty for one that is assigned after the last wave.
	Wave string `json:"wave,omitempty"`
	// Batch counts from 1 to Batches, the times that the wave assigns hosts.
	Batch   int `json:"batch,omitempty"`
	Batches int `json:"batches,omitempty"`
	// Before is how many hosts the rollout assigns before this batch, from now on.
	Before int `json:"before"`
}

// Why answers what holds a host of a rollout now. The host must be in the snapshot.
func Why(s rollout.Snapshot, now time.Time, name string) (Answer, error) {
	i := slices.IndexFunc(s.Hosts, func(h *nfv1.Host) bool { return h.Name == name })
	if i < 0 {
		return Answer{}, fmt.Errorf("there is no Host %q in namespace %q", name, s.Rollout.Namespace)
	}
	d := rollout.Plan(s, now)
	a := Answer{Namespace: s.Rollout.Namespace, Rollout: s.Rollout.Name, Host: name, Now: standing(d)}
	selected, err := rollout.Selects(&s.Rollout.Spec, s.Hosts[i])
	switch {
	case err != nil:
		a.Moves, a.Reasons = MovesNever, []Reason{{a.Now.Reason, a.Now.Message}}
		return a, nil //nolint:nilerr // the rollout's own standing says it
	case !selected:
		a.Moves = MovesNotSelected
		a.Reasons = []Reason{{rollout.ReasonNotSelected, "the rollout neither names the host in spec.hosts nor selects its labels"}}
		return a, nil
	}
	a.judge(s, d, s.Hosts[i])
	if a.Moves == MovesLater || a.Moves == MovesNow {
		a.Place = place(Play(s, now, OrderKnown), name)
	}
	return a, nil
}

// judge reads the decision about a host that is a target.
func (a *Answer) judge(s rollout.Snapshot, d rollout.Decision, h *nfv1.Host) {
	for _, n := range d.Notes {
		if n.Host == h.Name {
			a.Reasons = append(a.Reasons, Reason{n.Reason, n.Message})
		}
	}
	for _, f := range d.Status.Failures {
		if string(f.Host) == h.Name {
			a.Reasons = append(a.Reasons, Reason{f.Reason, fmt.Sprintf("failed in wave %s: %s", f.Wave, f.Message)})
		}
	}
	assigned := mine(s.Rollout, h.Spec.Desired) && h.Spec.Desired.Intent != nfv1.IntentNone
	switch {
	case slices.ContainsFunc(d.Assignments, func(x rollout.Assignment) bool { return x.Host.Name == h.Name }):
		a.Moves = MovesNow
	case slices.ContainsFunc(a.Reasons, func(r Reason) bool { return keeps(r.Reason) }):
		a.Moves = MovesNever
		return
	case assigned:
		a.Moves = MovesAssigned
		if ended(h) {
			return
		}
	default:
		a.Moves = MovesLater
	}
	if a.Moves != MovesNow && !slices.Contains(a.Reasons, reasonOf(a.Now)) {
		a.Reasons = append(a.Reasons, reasonOf(a.Now))
	}
}

func reasonOf(s Standing) Reason { return Reason{s.Reason, s.Message} }

// place finds a host in a forecast.
func place(f Forecast, name string) *Place {
	before := 0
	for _, w := range f.Waves {
		for i, batch := range w.Batches {
			if slices.Contains(batch, name) {
				return &Place{Wave: w.Name, Batch: i + 1, Batches: len(w.Batches), Before: before}
			}
			before += len(batch)
		}
	}
	if slices.Contains(f.Late, name) {
		return &Place{Before: before}
	}
	return nil
}
