// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package rollout

import (
	"slices"
	"time"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

// Selects reports whether a rollout names or selects a host, whatever else keeps the
// host out. The error says that the selector cannot be evaluated.
func Selects(spec *nfv1.RolloutSpec, h *nfv1.Host) (bool, error) {
	t, err := newTargeter(spec)
	if err != nil {
		return false, err
	}
	return t.selects(h), nil
}

// Candidates are the names of the hosts that a wave could take now, sorted; nil for a
// wave that there is not.
func Candidates(s Snapshot, now time.Time, name string) []string {
	p := newPlanner(s, now)
	if p.invalid != nil {
		return nil
	}
	var names []string
	for _, w := range p.waves {
		if w.Name != name {
			continue
		}
		for _, v := range p.candidates(w) {
			names = append(names, v.host.Name)
		}
	}
	slices.Sort(names)
	return names
}
