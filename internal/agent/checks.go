// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package agent

import (
	"context"
	"slices"
	"time"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/attempt"
	"github.com/nixfleet/nixfleet/internal/health"
	"github.com/nixfleet/nixfleet/internal/nix"
)

// checks are those of the system and those of the Host.
func (m *Machine) checks(path nix.StorePath) ([]health.Check, error) {
	checks, err := m.Source.Checks(path)
	if err != nil {
		return nil, err
	}
	if m.host != nil {
		checks = append(checks, health.FromSpec(m.host.Spec.HealthChecks)...)
	}
	return checks, nil
}

// attemptChecks are all checks that a system has to pass in an attempt. They run after an
// activation only.
func (m *Machine) attemptChecks(p attempt.Plan, s attempt.System) ([]health.Check, error) {
	checks, err := m.checks(s.Path)
	if err == nil && p.Baseline.UnitsChecked {
		checks = append(checks, health.NewlyFailed(s.String(), health.Baseline{Troubled: p.Baseline.FailedUnits}))
	}
	return checks, err
}

// unitsBefore is which units are not well before anything is changed; nil where nobody
// will ask.
func (m *Machine) unitsBefore(ctx context.Context) (*health.Baseline, error) {
	if !m.unitsCount() {
		return nil, nil
	}
	return m.Prober.Baseline(ctx)
}

// restChecks are what the running system is looked at by while nothing is changed. Units
// count if it is known how they were when a system was committed.
func (m *Machine) restChecks(running nix.StorePath) ([]health.Check, error) {
	checks, err := m.checks(running)
	if err == nil && m.journal.Units != nil && m.unitsCount() {
		_, specialisation, _ := m.Activator.Running() // it was read a moment ago
		s := attempt.System{Path: running, Specialisation: specialisation}
		checks = append(checks, m.units.Check(s.String(), *m.journal.Units))
	}
	return checks, err
}

// unitsCount reports whether the Host's policy lets units condemn a system.
func (m *Machine) unitsCount() bool {
	return m.host == nil || m.host.Spec.Activation.FailedUnits != nfv1.FailedUnitsIgnore
}

// noteUnits keeps how the units are when a system is committed. Before are those that were
// not well before its activation: another one has failed since, and nobody expects it to.
func (m *Machine) noteUnits(ctx context.Context, before *attempt.Baseline) {
	units, err := m.Prober.Baseline(ctx)
	if err != nil {
		m.Log.Warn("Units that fail from now on are not seen", "error", err)
	}
	if units != nil && before != nil && before.UnitsChecked {
		units.Troubled = slices.DeleteFunc(units.Troubled, func(name string) bool { return !slices.Contains(before.FailedUnits, name) })
	}
	m.journal.Units = units
}

// healthBudget is how long the checks of a system can take at most; they run side by side.
func (m *Machine) healthBudget(p attempt.Plan) time.Duration {
	checks, err := m.attemptChecks(p, p.Target)
	if err != nil {
		return budgetSlack // they fail at once
	}
	longest := time.Duration(0)
	for _, c := range checks {
		longest = max(longest, c.Timeout)
	}
	return longest + budgetSlack
}

// passing are the names of the checks that what runs now passes: no more can be asked of
// it after a roll-back.
func (m *Machine) passing(ctx context.Context, path nix.StorePath) []string {
	if path == "" {
		return nil
	}
	checks, err := m.checks(path)
	if err != nil {
		return nil
	}
	var names []string
	for _, r := range m.Prober.Once(ctx, checks) {
		if r.Healthy {
			names = append(names, r.Name)
		}
	}
	return names
}
