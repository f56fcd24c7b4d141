// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package rollout

import (
	"fmt"
	"sort"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

// targeter tells which hosts a rollout selects.
type targeter struct {
	names    map[nfv1.HostName]bool
	selector labels.Selector
}

func newTargeter(spec *nfv1.RolloutSpec) (*targeter, error) {
	t := &targeter{names: make(map[nfv1.HostName]bool, len(spec.Hosts)), selector: labels.Nothing()}
	for _, n := range spec.Hosts {
		t.names[n] = true
	}
	if spec.Selector == nil {
		return t, nil
	}
	sel, err := compile(spec.Selector)
	if err != nil {
		return nil, fmt.Errorf("spec.selector: %w", err)
	}
	t.selector = sel
	return t, nil
}

func (t *targeter) selects(h *nfv1.Host) bool {
	return t.names[nfv1.HostName(h.Name)] || t.selector.Matches(labels.Set(h.Labels))
}

func compile(s *nfv1.HostSelector) (labels.Selector, error) {
	return metav1.LabelSelectorAsSelector(s.LabelSelector())
}

// wave is a wave of the strategy with its selector compiled.
type wave struct {
	nfv1.RolloutWave
	selector labels.Selector
	last     bool
}

// Names of the waves of the strategies that have none of their own.
const (
	waveAll    = "all"
	waveCanary = "canary"
	waveRest   = "rest"
)

// effectiveWaves are the waves of a strategy: those of the spec, or those that a
// shorthand stands for.
func effectiveWaves(s nfv1.RolloutStrategy) ([]wave, error) {
	var specs []nfv1.RolloutWave
	switch s.Type {
	case nfv1.StrategyStaged:
		specs = s.Waves
	case nfv1.StrategyCanary:
		specs = []nfv1.RolloutWave{{Name: waveCanary, Size: one()}, {Name: waveRest}}
	default:
		specs = []nfv1.RolloutWave{{Name: waveAll}}
	}
	out := make([]wave, 0, len(specs))
	for i, w := range specs {
		c := wave{RolloutWave: w, selector: labels.Everything(), last: i == len(specs)-1}
		if w.Selector != nil {
			sel, err := compile(w.Selector)
			if err != nil {
				return nil, fmt.Errorf("selector of wave %s: %w", w.Name, err)
			}
			c.selector = sel
		}
		out = append(out, c)
	}
	return out, nil
}

// holders finds, for each host, the rollout that holds it.
type holders struct {
	rollouts  []*nfv1.Rollout
	targeters []*targeter
}

// newHolders keeps the unfinished rollouts, oldest first.
func newHolders(all []*nfv1.Rollout) *holders {
	h := &holders{}
	for _, r := range all {
		if !r.Status.Phase.Finished() {
			h.rollouts = append(h.rollouts, r)
		}
	}
	sort.Slice(h.rollouts, func(i, j int) bool { return older(h.rollouts[i], h.rollouts[j]) })
	for _, r := range h.rollouts {
		t, err := newTargeter(&r.Spec)
		if err != nil {
			t = &targeter{selector: labels.Nothing()}
		}
		h.targeters = append(h.targeters, t)
	}
	return h
}

func older(a, b *nfv1.Rollout) bool {
	if !a.CreationTimestamp.Time.Equal(b.CreationTimestamp.Time) {
		return a.CreationTimestamp.Before(&b.CreationTimestamp)
	}
	return a.UID < b.UID
}

// of returns the oldest unfinished rollout that selects the host, or nil. One that was
// cancelled or deleted holds only what it still has in flight.
func (h *holders) of(host *nfv1.Host) *nfv1.Rollout {
	for i, r := range h.rollouts {
		if ending(r) {
			if holdsInFlight(r, host) {
				return r
			}
			continue
		}
		if h.targeters[i].selects(host) {
			return r
		}
	}
	return nil
}

func ending(r *nfv1.Rollout) bool {
	return r.Spec.State == nfv1.RolloutStateCancelled || !r.DeletionTimestamp.IsZero()
}

func holdsInFlight(r *nfv1.Rollout, h *nfv1.Host) bool {
	d := h.Spec.Desired
	return d != nil && d.Rollout != nil && d.Rollout.UID == r.UID && d.Intent != nfv1.IntentNone && matchingOutcome(h) == ""
}
