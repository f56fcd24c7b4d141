// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package metrics

import (
	"time"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/events"
)

// Progress is what a new status of a rollout says that the stored one did not.
type Progress struct {
	// Waves are the durations of the waves that finished.
	Waves []time.Duration

	// Failures counts the hosts that failed, by a reason of failureReasons.
	Failures map[string]int

	// Ended is the phase in which the rollout ended, or empty; Took is how long it took
	// since its creation.
	Ended nfv1.RolloutPhase
	Took  time.Duration
}

// NewProgress compares the stored status of a rollout with the one to store in its place.
// failed are the hosts that failed since. Since it looks at nothing else, a plan that is
// made again after a restart or a failed write says the same, and one that is made after
// the write says nothing.
func NewProgress(created, now time.Time, before, after *nfv1.RolloutStatus, failed []nfv1.HostFailure) Progress {
	p := Progress{Failures: map[string]int{}}
	unfinished := map[string]bool{}
	for i := range before.Waves {
		unfinished[before.Waves[i].Name] = before.Waves[i].FinishedAt.IsZero()
	}
	for i := range after.Waves {
		w := &after.Waves[i]
		open, known := unfinished[w.Name]
		if (open || !known) && !w.FinishedAt.IsZero() && w.Size > 0 {
			p.Waves = append(p.Waves, w.FinishedAt.Sub(w.StartedAt.Time))
		}
	}
	for _, f := range failed {
		p.Failures[oneOf(f.Reason, failureReasons())]++
	}
	if !before.Phase.Finished() && after.Phase.Finished() {
		p.Ended, p.Took = after.Phase, max(now.Sub(created), 0)
	}
	return p
}

func failureReasons() []string { return append(events.FailureReasons(), other) }
