//go:build e2e

// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package e2e

import (
	"fmt"
	"testing"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/nix"
)

// TestPowerIsLost cuts the power in each phase.
func TestPowerIsLost(t *testing.T) {
	t.Parallel()
	const name = "power"
	h := start(t, name, 14)
	good := h.first
	tests := []struct {
		phase   nfv1.HostPhase
		slow    func(*system)
		outcome nfv1.AttemptOutcome
	}{
		{nfv1.HostPhaseActivating, func(s *system) { s.Before = "sleep 5" }, nfv1.AttemptRolledBack},
		{nfv1.HostPhaseActivating, func(s *system) { s.After = "sleep 5" }, nfv1.AttemptRolledBack},
		{nfv1.HostPhaseVerifying, func(*system) {}, nfv1.AttemptRolledBack},
		{nfv1.HostPhaseConfirming, func(s *system) { s.After = "ip link set host0 down" }, nfv1.AttemptRolledBack},
		{nfv1.HostPhaseCommitting, func(s *system) { s.Boot = "sleep 5" }, nfv1.AttemptFailed},
	}
	for i, tc := range tests {
		t.Run(fmt.Sprintf("%s %d", tc.phase, i), func(t *testing.T) {
			path := h.deploy(t, with(newSystem(name, fmt.Sprint("cut-", i)), tc.slow))
			h.reaches(t, path, tc.phase)
			if tc.phase == nfv1.HostPhaseActivating && i == 1 {
				h.runsSoon(t, path)
			}
			h.cutPower()
			t.Logf("the power was cut in phase %s", tc.phase)
			if err := h.powerOn(); err != nil {
				t.Fatal(err)
			}
			h.ends(t, path, tc.outcome)
			h.is(t, good)
			h.healthy(t)
		})
	}
	t.Run(string(nfv1.HostPhaseFetching), func(t *testing.T) {
		h.fleet.stalled.Store(&h.name)
		defer h.fleet.stalled.Store(nil)
		path := h.deploy(t, newSystem(name, "cut-fetch"))
		h.reaches(t, path, nfv1.HostPhaseFetching)
		h.cutPower()
		h.fleet.stalled.Store(nil)
		if err := h.powerOn(); err != nil {
			t.Fatal(err)
		}
		h.ends(t, path, nfv1.AttemptSucceeded)
		h.is(t, path)
	})
	t.Run("at rest", func(t *testing.T) {
		path := h.succeeds(t, newSystem(name, "kept"))
		h.cutPower()
		if err := h.powerOn(); err != nil {
			t.Fatal(err)
		}
		h.runsSoon(t, path)
		h.is(t, path)
		h.healthy(t)
	})
}

// reaches waits until the agent has journalled a phase of the attempt at a system. The
// journal is read, not the API, which hears of a phase later or not at all.
func (h *host) reaches(t *testing.T, path nix.StorePath, phase nfv1.HostPhase) {
	t.Helper()
	h.waitFor(t, fmt.Sprintf("the attempt at %s is in phase %s", path, phase), func() (bool, string) {
		journal, err := h.journal()
		if err != nil || journal.Open == nil {
			return false, fmt.Sprintf("none is open: %v", err)
		}
		open := journal.Open
		return string(open.StorePath) == path.String() && open.Step == phase, fmt.Sprintf("%s in %s", open.StorePath, open.Step)
	})
}

// TestLastResort tries what the ladder does when going back does not work either.
func TestLastResort(t *testing.T) {
	t.Parallel()
	const name = "last"
	h := start(t, name, 15)

	t.Run("emergency mode", func(t *testing.T) {
		bad := h.deploy(t, with(newSystem(name, "emergency"), func(s *system) {
			s.After = "systemctl --no-block emergency; sleep 3"
		}))
		h.ends(t, bad, nfv1.AttemptRolledBack)
		h.is(t, h.first)
	})
	t.Run("the way back fails, so that the host reboots", func(t *testing.T) {
		before := h.rebooted()
		// From now on what runs does not come back by an activation.
		bad := h.deploy(t, with(newSystem(name, "no-way-back"), func(s *system) {
			s.Before = "mount --bind /usr/bin/false " + h.first.String() + "/bin/switch-to-configuration"
			s.Units["app.service"] = app("no-way-back", "/usr/bin/false")
		}))
		h.ends(t, bad, nfv1.AttemptRolledBack)
		h.is(t, h.first)
		if got := h.rebooted() - before; got != 1 {
			t.Errorf("the host was rebooted %d times", got)
		}
		h.healthy(t)
	})
}

// rebooted counts the reboots that the host asked for itself.
func (h *host) rebooted() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.reboots
}
