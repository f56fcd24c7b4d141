// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package simulated

import (
	"context"
	"time"

	"github.com/nixfleet/nixfleet/internal/activation"
	"github.com/nixfleet/nixfleet/internal/attempt"
	"github.com/nixfleet/nixfleet/internal/health"
	"github.com/nixfleet/nixfleet/internal/nix"
)

// What follows has nothing to do on a host in memory.

// Arm implements agent.Activator.
func (h *Host) Arm(context.Context, attempt.Plan) error { return nil }

// Settle implements agent.Activator.
func (h *Host) Settle(context.Context, attempt.Plan) error { return nil }

// Join implements agent.Activator: no activation outlives its agent.
func (h *Host) Join(context.Context, attempt.Plan) (attempt.Activation, bool, error) {
	return attempt.Activation{}, false, nil
}

// Stale implements agent.Activator: an agent is never replaced.
func (h *Host) Stale(context.Context, attempt.Plan) (string, error) { return "", nil }

// Boot implements agent.Activator: there is no boot loader.
func (h *Host) Boot(context.Context, nix.StorePath, time.Duration, string) (activation.Result, error) {
	return activation.Result{}, nil
}

// Abandon implements agent.Activator.
func (h *Host) Abandon(context.Context, activation.Kind, string) error { return nil }

// Baseline implements agent.Prober: no systemd runs the host.
func (h *Host) Baseline(context.Context) (*health.Baseline, error) { return nil, nil }

// Keep implements agent.Source.
func (h *Host) Keep(context.Context, nix.StorePath) error { return nil }

// Forget implements agent.Source.
func (h *Host) Forget(context.Context, ...nix.StorePath) error { return nil }

// Checks implements agent.Source: every system has one check.
func (h *Host) Checks(nix.StorePath) ([]health.Check, error) {
	return []health.Check{{Name: "app", Type: "tcp"}}, nil
}

// Label implements agent.Source.
func (h *Host) Label(nix.StorePath) string { return "" }

// Preflight implements agent.Source.
func (h *Host) Preflight(context.Context, attempt.System, attempt.System) error { return nil }

// Has implements agent.Source.
func (h *Host) Has(nix.StorePath, string) bool { return false }

// NeedsReboot implements agent.Source.
func (h *Host) NeedsReboot(_, _ nix.StorePath) []string { return nil }
