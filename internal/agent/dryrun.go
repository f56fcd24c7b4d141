// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package agent

import (
	"context"
	"errors"
	"fmt"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/attempt"
	"github.com/nixfleet/nixfleet/internal/nix"
)

// reasonDryRun is why a system was refused that could have been activated.
const reasonDryRun = "DryRun"

// errNotADryRun is why a dry run cannot begin.
var errNotADryRun = errors.New("a dry run changes nothing; start the agent without it, so that it can bring this to an end")

// mayRehearse refuses a dry run on a host where something has to be done first.
func (m *Machine) mayRehearse(journal *JournalFile) error {
	j, err := journal.Read()
	if err != nil {
		return errors.Join(err, errNotADryRun)
	}
	if j.Open != nil && j.Open.Step != nfv1.HostPhaseFetching {
		return fmt.Errorf("attempt %d is open, in phase %s: %w", j.Open.Number, j.Open.Step, errNotADryRun)
	}
	return nil
}

// rehearse ends the attempt where the host would be changed, and says how it would be.
func (m *Machine) rehearse(ctx context.Context, target nix.StorePath) error {
	running, specialisation, err := m.Activator.Running()
	if err != nil {
		return m.finish(ctx, nfv1.AttemptFailed, nfv1.ReasonInternalError, "dry run: "+err.Error())
	}
	to := attempt.System{Path: target}
	if specialisation != "" && m.Source.Has(target, specialisation) {
		to.Specialisation = specialisation
	}
	var refusal *Refusal
	switch err := m.Source.Preflight(ctx, attempt.System{Path: running, Specialisation: specialisation}, to); {
	case errors.As(err, &refusal):
		return m.finish(ctx, nfv1.AttemptRefused, refusal.Reason, "dry run: "+refusal.Error())
	case err != nil && ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return m.finish(ctx, nfv1.AttemptFailed, nfv1.ReasonInternalError, "dry run: "+err.Error())
	}
	checks, err := m.checks(target)
	if err != nil {
		return m.finish(ctx, nfv1.AttemptRefused, nfv1.ReasonHealthCheckFailed, "dry run: the system's health checks cannot be read: "+err.Error())
	}
	return m.finish(ctx, nfv1.AttemptRefused, reasonDryRun, fmt.Sprintf(
		"dry run: it is in the store and may run here; %s would be activated, proved by %d health checks and a report within %s, and committed",
		to, len(checks), m.confirmTimeout()))
}
