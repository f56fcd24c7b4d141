// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package metrics

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

// Recorder counts what the rollout controller does. Its methods may be called at the same
// time; those of a nil Recorder do nothing.
type Recorder struct {
	plan        *prometheus.HistogramVec
	first       *prometheus.HistogramVec
	rollout     *prometheus.HistogramVec
	wave        *prometheus.HistogramVec
	failures    *prometheus.CounterVec
	assignments *prometheus.CounterVec
	writes      *prometheus.CounterVec
}

// NewRecorder registers the counters and histograms of the rollout controller. Each series
// is there from the start, at zero, so that its first increase is seen.
func NewRecorder(registry prometheus.Registerer) (*Recorder, error) {
	r := &Recorder{
		plan:        NewHistogramVec(PlanDuration),
		first:       NewHistogramVec(RolloutFirstAssigned),
		rollout:     NewHistogramVec(RolloutDuration),
		wave:        NewHistogramVec(WaveDuration),
		failures:    NewCounterVec(HostFailures),
		assignments: NewCounterVec(Assignments),
		writes:      NewCounterVec(Writes),
	}
	err := errors.Join(
		Register(registry, &r.plan), Register(registry, &r.first), Register(registry, &r.rollout), Register(registry, &r.wave),
		Register(registry, &r.failures), Register(registry, &r.assignments), Register(registry, &r.writes),
	)
	if err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	r.startAtZero()
	return r, nil
}

func (r *Recorder) startAtZero() {
	for _, h := range []*prometheus.HistogramVec{r.plan, r.first, r.wave} {
		h.WithLabelValues()
	}
	for _, phase := range finishedPhases() {
		r.rollout.WithLabelValues(phase)
	}
	for _, reason := range failureReasons() {
		r.failures.WithLabelValues(reason)
	}
	for _, intent := range intents() {
		r.assignments.WithLabelValues(intent)
	}
	for _, kind := range []string{"Host", "Release", "Rollout"} {
		for _, result := range results() {
			r.writes.WithLabelValues(kind, result)
		}
	}
}

// Planned counts a plan.
func (r *Recorder) Planned(took time.Duration) {
	if r != nil {
		r.plan.WithLabelValues().Observe(took.Seconds())
	}
}

// Wrote counts a write of an object and what came of it.
func (r *Recorder) Wrote(o client.Object, err error) {
	if r == nil {
		return
	}
	kind := "Host"
	switch o.(type) {
	case *nfv1.Release:
		kind = "Release"
	case *nfv1.Rollout:
		kind = "Rollout"
	}
	result := resultFailed
	switch {
	case err == nil:
		result = resultAccepted
	case apierrors.IsConflict(err), apierrors.IsNotFound(err):
		result = resultConflict
	}
	r.writes.WithLabelValues(kind, result).Inc()
}

// Assigned counts an assignment that was accepted.
func (r *Recorder) Assigned(intent nfv1.Intent) {
	if r != nil {
		r.assignments.WithLabelValues(string(intent)).Inc()
	}
}

// FirstAssigned counts the time that a rollout took to its first assignment.
func (r *Recorder) FirstAssigned(took time.Duration) {
	if r != nil {
		r.first.WithLabelValues().Observe(max(took, 0).Seconds())
	}
}

// Advanced counts what a new status of a rollout says that the stored one did not. It is
// to be called once the new status is stored.
func (r *Recorder) Advanced(p Progress) {
	if r == nil {
		return
	}
	for _, took := range p.Waves {
		r.wave.WithLabelValues().Observe(took.Seconds())
	}
	for reason, n := range p.Failures {
		r.failures.WithLabelValues(reason).Add(float64(n))
	}
	if p.Ended != "" {
		r.rollout.WithLabelValues(string(p.Ended)).Observe(p.Took.Seconds())
	}
}

// oneOf bounds a value that becomes a label.
func oneOf(value string, known []string) string {
	if slices.Contains(known, value) {
		return value
	}
	return other
}
