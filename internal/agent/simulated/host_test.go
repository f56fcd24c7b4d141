// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package simulated

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"k8s.io/utils/clock"

	"github.com/nixfleet/nixfleet/internal/agent"
	"github.com/nixfleet/nixfleet/internal/attempt"
	"github.com/nixfleet/nixfleet/internal/health"
	"github.com/nixfleet/nixfleet/internal/nix"
)

const (
	before nix.StorePath = "/nix/store/00000000000000000000000000000000-nixos-system-h-old"
	after  nix.StorePath = "/nix/store/11111111111111111111111111111111-nixos-system-h-new"
)

// with is a host that has one fault with every system.
func with(fault Fault) *Host {
	return NewHost("h", before, Behavior{Shares: map[Fault]int{fault: 100}}, clock.RealClock{})
}

func TestFaultsAreSharedOut(t *testing.T) {
	b := Behavior{Shares: map[Fault]int{Unhealthy: 20, Slow: 5}}
	count := map[Fault]int{}
	for i := range 10_000 {
		name := fmt.Sprintf("sim-%04d", i)
		fault := b.faultOf(name, after)
		count[fault]++
		if again := b.faultOf(name, after); again != fault {
			t.Fatalf("%s has fault %q, and then %q", name, fault, again)
		}
	}
	for fault, want := range map[Fault]int{None: 7500, Unhealthy: 2000, Slow: 500} {
		if got := count[fault]; got < want*8/10 || got > want*12/10 {
			t.Errorf("%q: %d of 10,000 hosts, want about %d", fault, got, want)
		}
	}
	other := 0
	seeded := Behavior{Shares: b.Shares, Seed: "2"}
	for i := range 1000 {
		name := fmt.Sprintf("sim-%04d", i)
		if b.faultOf(name, after) != seeded.faultOf(name, after) {
			other++
		}
	}
	if other == 0 {
		t.Error("another seed has the same hosts fail")
	}
}

func TestBehaviorsThatCannotBe(t *testing.T) {
	for says, b := range map[string]Behavior{
		"no fault": {Shares: map[Fault]int{"fire": 1}}, "120 of 100": {Shares: map[Fault]int{Slow: 60, Hangs: 60}}, "-1 of 100": {Shares: map[Fault]int{Slow: -1}},
	} {
		if err := b.Validate(); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v: got %v, want %q", b.Shares, err, says)
		}
	}
	if err := (Behavior{}).Validate(); err != nil {
		t.Error(err)
	}
}

func TestFetch(t *testing.T) {
	tests := map[Fault]struct {
		says    string
		refused bool
		retries int
	}{
		None: {}, FetchFails: {says: "no cache has it"}, Untrusted: {says: "trusted key", refused: true}, FetchPartial: {retries: 1},
	}
	for fault, tc := range tests {
		t.Run(string(fault), func(t *testing.T) {
			retries, last := 0, nix.FetchProgress{}
			err := with(fault).Fetch(t.Context(), after, nil, agent.FetchNotes{
				Progress: func(p nix.FetchProgress) { last = p }, Retry: func(error) { retries++ },
			})
			refusal, refused := errors.AsType[*agent.Refusal](err)
			if refused != tc.refused || (err == nil) != (tc.says == "") || err != nil && !strings.Contains(err.Error(), tc.says) {
				t.Errorf("got %v (%v), want %q", err, refusal, tc.says)
			}
			if retries != tc.retries || err == nil && last.BytesDone != last.BytesTotal {
				t.Errorf("%d retries and %+v at the end", retries, last)
			}
		})
	}
}

func TestActivateAndGoBack(t *testing.T) {
	tests := map[Fault]struct {
		exit     int
		timedOut bool
		runs     nix.StorePath
		healthy  bool
	}{
		None: {runs: after, healthy: true}, ActivationFails: {exit: 1, runs: before, healthy: true}, ActivationPartial: {exit: 4, runs: after, healthy: true},
		Hangs: {exit: -1, timedOut: true, runs: before, healthy: true}, Unhealthy: {runs: after},
	}
	for fault, tc := range tests {
		t.Run(string(fault), func(t *testing.T) {
			h := with(fault)
			p := attempt.Plan{
				Number: 1, Nonce: "ABCDEFGHIJKLMNOPQRSTUVWXYZ", StateDir: t.TempDir(), Root: "/", Profile: "/profile", Protection: attempt.ProtectionNone,
				Target: attempt.System{Path: after}, Previous: attempt.System{Path: before}, Agent: "/agent",
				PreviousProfile: nix.ProfileState{Path: before, Generation: 1, Newest: 1}, ConfirmTimeoutSeconds: 1, HealthBudgetSeconds: 1,
			}
			record, err := h.Activate(t.Context(), p)
			if err != nil || !record.Ended || record.ExitCode != tc.exit || record.TimedOut != tc.timedOut {
				t.Errorf("got %+v, %v", record, err)
			}
			if runs, _, err := h.Running(); err != nil || runs != tc.runs {
				t.Errorf("%s runs, want %s", runs, tc.runs)
			}
			if got := h.Once(t.Context(), []health.Check{{Name: "app"}}); len(got) != 1 || got[0].Healthy != tc.healthy {
				t.Errorf("got %+v, want healthy %v", got, tc.healthy)
			}
			if err := h.Set(t.Context(), after); err != nil {
				t.Fatal(err)
			}
			p.ActivationTimeoutSeconds = 1
			if _, err := attempt.Create(p); err != nil {
				t.Fatal(err)
			}
			back, err := h.Rollback(t.Context(), p)
			runs, _, runErr := h.Running()
			profile, _, profileErr := h.Current(t.Context())
			if err := errors.Join(err, runErr, profileErr); err != nil || back.Outcome != attempt.RolledBack || runs != before || profile != before {
				t.Errorf("got %+v, %s runs and %s is in the profile: %v", back, runs, profile, err)
			}
		})
	}
}
