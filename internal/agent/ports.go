// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package agent

import (
	"context"
	"time"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/activation"
	"github.com/nixfleet/nixfleet/internal/attempt"
	"github.com/nixfleet/nixfleet/internal/health"
	"github.com/nixfleet/nixfleet/internal/nix"
)

// Activator carries out attempts on the machine and tells what runs on it. What it does
// for an attempt it takes from the plan, and it leaves records in the attempt's directory:
// an agent that was replaced in the meantime goes on from there.
type Activator interface {
	Running() (nix.StorePath, string, error)
	Booted() (nix.StorePath, error)

	// Arm has somebody else go back if the activation does not come to its end.
	Arm(ctx context.Context, p attempt.Plan) error

	// Settle ends that, when the attempt is decided.
	Settle(ctx context.Context, p attempt.Plan) error

	// Activate makes the target the running system and returns when nothing of the
	// activation runs any more. An error means that it is not known what became of it.
	Activate(ctx context.Context, p attempt.Plan) (attempt.Activation, error)

	// Join is Activate for what an earlier process of the agent has begun. It answers
	// false if that neither runs nor has left what became of it.
	Join(ctx context.Context, p attempt.Plan) (attempt.Activation, bool, error)

	// Stale says why this process is not the agent of the system that was activated;
	// empty if it is.
	Stale(ctx context.Context, p attempt.Plan) (string, error)

	// Rollback goes back. An error means that it has to be tried again.
	Rollback(ctx context.Context, p attempt.Plan) (attempt.RollbackRecord, error)

	// Boot makes a system of the profile the boot default.
	Boot(ctx context.Context, path nix.StorePath, timeout time.Duration, id string) (activation.Result, error)

	// TestUnchecked makes a system the running one, without an attempt.
	TestUnchecked(ctx context.Context, s attempt.System, timeout time.Duration, id string) (activation.Result, error)

	// Abandon ends the run of switch-to-configuration that an earlier process of the
	// agent left behind.
	Abandon(ctx context.Context, kind activation.Kind, id string) error
}

// Prober runs health checks. internal/health has the real one.
type Prober interface {
	Once(ctx context.Context, checks []health.Check) []health.Result
	UntilHealthy(ctx context.Context, checks []health.Check) []health.Result

	// Baseline is which units are not well now; nil where no systemd runs the host.
	Baseline(ctx context.Context) (*health.Baseline, error)
}

// Source is what brings a system to the host and says whether it may run here.
type Source interface {
	// Fetch brings the system into the store and keeps it there. It answers a *Refusal
	// if the system may not run on this host, whatever is tried again.
	Fetch(ctx context.Context, path nix.StorePath, caches []nfv1.CacheURL, notes FetchNotes) error

	// Keep keeps a system that is in the store from garbage collection.
	Keep(ctx context.Context, path nix.StorePath) error

	// Checks are the health checks that the system carries.
	Checks(path nix.StorePath) ([]health.Check, error)

	// Label is the system's label for people, empty if it has none.
	Label(path nix.StorePath) string

	// Preflight answers a *Refusal if target cannot be activated on a host that runs
	// previous; an error of another kind says that it is not known.
	Preflight(ctx context.Context, previous, target attempt.System) error

	// Has reports whether a system has the specialisation.
	Has(path nix.StorePath, specialisation string) bool

	// NeedsReboot says which parts of the running system take effect only after a boot
	// into it; empty if it needs none.
	NeedsReboot(booted, running nix.StorePath) []string

	// Forget lets the garbage collector take what Fetch and Keep kept, but for the given
	// systems.
	Forget(ctx context.Context, keep ...nix.StorePath) error
}

// FetchNotes is told how a fetch goes. Both are called while Fetch runs.
type FetchNotes struct {
	// Progress is told how much is done, often and from another goroutine.
	Progress func(nix.FetchProgress)

	// Retry is told why a try failed after which there will be another.
	Retry func(error)
}

// Reporter carries reports to the control plane.
type Reporter interface {
	// Report takes the newest status. Soon says that it may wait for a better one.
	Report(status nfv1.HostStatus, soon bool)

	// Amend replaces the status that waits to be sent, if one does. It is no report of its
	// own.
	Amend(status nfv1.HostStatus)

	// Confirm delivers a status over a connection of its own, dialled now.
	Confirm(ctx context.Context, status nfv1.HostStatus) error

	// Reachable reports whether the last exchange with the control plane went well.
	Reachable() bool

	// Event records something that an operator should know.
	Event(eventType, reason, note string)
}

// Refusal says that a system may not run on this host.
type Refusal struct {
	// Reason is a CamelCase word, such as UntrustedSignature.
	Reason string

	// Err says what is wrong.
	Err error
}

// Error is the message of the error behind the refusal.
func (r *Refusal) Error() string { return r.Err.Error() }

// Unwrap gives access to the error behind the refusal.
func (r *Refusal) Unwrap() error { return r.Err }
