// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package simulated

import (
	"context"
	"errors"
	"sync"
	"time"

	"k8s.io/utils/clock"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/activation"
	"github.com/nixfleet/nixfleet/internal/agent"
	"github.com/nixfleet/nixfleet/internal/attempt"
	"github.com/nixfleet/nixfleet/internal/health"
	"github.com/nixfleet/nixfleet/internal/nix"
)

// closureSize is what a fetch of this host pretends to bring.
const closureSize = 200 << 20

// slowness is how much longer everything takes under the fault Slow.
const slowness = 10

// Host is a machine in memory. Its methods may be called from several goroutines.
type Host struct {
	// Name tells the host apart from others.
	Name string

	// Behavior says what goes wrong on it.
	Behavior Behavior

	// Clock times everything.
	Clock clock.Clock

	// Fetching is told when a fetch begins; nil for nobody.
	Fetching func(host string, path nix.StorePath)

	mu      sync.Mutex
	running nix.StorePath
	profile nix.ProfileState
	partial map[nix.StorePath]bool
}

var (
	_ agent.Activator = (*Host)(nil)
	_ agent.Source    = (*Host)(nil)
	_ agent.Prober    = (*Host)(nil)
	_ nix.Profile     = (*Host)(nil)
)

// NewHost returns a host that runs a system and has it in its profile.
func NewHost(name string, installed nix.StorePath, b Behavior, c clock.Clock) *Host {
	return &Host{
		Name: name, Behavior: b, Clock: c, running: installed,
		profile: nix.ProfileState{Path: installed, Generation: 1, Newest: 1}, partial: map[nix.StorePath]bool{},
	}
}

func (h *Host) fault(path nix.StorePath) Fault { return h.Behavior.faultOf(h.Name, path) }

// Reaches reports whether the host can reach the control plane.
func (h *Host) Reaches() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.fault(h.running) != Offline
}

// pass lets time go by. It answers false if ctx ended first.
func (h *Host) pass(ctx context.Context, path nix.StorePath, d time.Duration) bool {
	if h.fault(path) == Slow {
		d *= slowness
	}
	timer := h.Clock.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C():
		return true
	}
}

// Fetch implements agent.Source.
func (h *Host) Fetch(ctx context.Context, path nix.StorePath, _ []nfv1.CacheURL, notes agent.FetchNotes) error {
	if h.Fetching != nil {
		h.Fetching(h.Name, path)
	}
	fault := h.fault(path)
	if fault == Untrusted {
		return &agent.Refusal{Reason: nfv1.ReasonUntrustedSignature, Err: errors.New("no trusted key has signed it")}
	}
	if fault == FetchPartial && h.first(path) {
		notes.Progress(nix.FetchProgress{PathsDone: 1, PathsTotal: 2, BytesDone: closureSize / 2, BytesTotal: closureSize})
		notes.Retry(errors.New("unexpected end of file"))
	}
	if !h.pass(ctx, path, h.Behavior.Fetch) {
		return ctx.Err()
	}
	if fault == FetchFails {
		return errors.New("no cache has it")
	}
	notes.Progress(nix.FetchProgress{PathsDone: 2, PathsTotal: 2, BytesDone: closureSize, BytesTotal: closureSize})
	return nil
}

// first reports whether a system is fetched for the first time.
func (h *Host) first(path nix.StorePath) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	first := !h.partial[path]
	h.partial[path] = true
	return first
}

// Activate implements agent.Activator.
func (h *Host) Activate(ctx context.Context, p attempt.Plan) (attempt.Activation, error) {
	fault, record := h.fault(p.Target.Path), attempt.Activation{Ended: true, BootID: p.BootID, StartedAt: h.Clock.Now()}
	took := h.Behavior.Activate
	if fault == Hangs {
		took = p.ActivationTimeout()
	}
	if !h.pass(ctx, p.Target.Path, took) {
		return record, ctx.Err()
	}
	record.EndedAt = h.Clock.Now()
	switch fault {
	case Hangs:
		record.TimedOut, record.ExitCode = true, -1
		return record, nil
	case ActivationFails:
		record.ExitCode, record.Output = 1, "pre-switch check failed"
		return record, nil
	case ActivationPartial:
		record.ExitCode, record.Output = 4, "the following units failed: app.service"
	}
	h.run(p.Target.Path)
	return record, nil
}

func (h *Host) run(path nix.StorePath) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.running = path
}

// Rollback implements agent.Activator.
func (h *Host) Rollback(ctx context.Context, p attempt.Plan) (attempt.RollbackRecord, error) {
	record := attempt.RollbackRecord{Trigger: activation.TriggerAgent, StartedAt: h.Clock.Now()}
	if !h.pass(ctx, p.Previous.Path, h.Behavior.Activate) {
		return record, ctx.Err()
	}
	h.mu.Lock()
	h.running, h.profile = p.Previous.Path, p.PreviousProfile
	h.mu.Unlock()
	record.EndedAt, record.Outcome = h.Clock.Now(), attempt.RolledBack
	return record, attempt.At(p.StateDir, p.Number).SaveRollback(record)
}

// Running implements agent.Activator.
func (h *Host) Running() (nix.StorePath, string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.running, "", nil
}

// Booted implements agent.Activator: these hosts never boot.
func (h *Host) Booted() (nix.StorePath, error) {
	path, _, err := h.Running()
	return path, err
}

// TestUnchecked implements agent.Activator.
func (h *Host) TestUnchecked(_ context.Context, s attempt.System, _ time.Duration, _ string) (activation.Result, error) {
	h.run(s.Path)
	return activation.Result{}, nil
}

// Once implements agent.Prober.
func (h *Host) Once(_ context.Context, checks []health.Check) []health.Result {
	h.mu.Lock()
	defer h.mu.Unlock()
	results := make([]health.Result, 0, len(checks))
	for _, c := range checks {
		r := health.Result{Name: c.Name, Healthy: h.fault(h.running) != Unhealthy}
		if !r.Healthy {
			r.Message = "it answered 500"
		}
		results = append(results, r)
	}
	return results
}

// UntilHealthy implements agent.Prober.
func (h *Host) UntilHealthy(ctx context.Context, checks []health.Check) []health.Result {
	return h.Once(ctx, checks)
}

// Current implements nix.Profile.
func (h *Host) Current(context.Context) (nix.StorePath, int64, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.profile.Path, h.profile.Generation, nil
}

// State implements nix.Profile.
func (h *Host) State(context.Context) (nix.ProfileState, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.profile, nil
}

// Set implements nix.Profile.
func (h *Host) Set(_ context.Context, path nix.StorePath) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.profile.Path != path {
		h.profile.Newest++
		h.profile.Path, h.profile.Generation = path, h.profile.Newest
	}
	return nil
}

// Restore implements nix.Profile.
func (h *Host) Restore(_ context.Context, state nix.ProfileState) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.profile = state
	return nil
}
