// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package agent

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/nix"
)

const byHand = nix.StorePath("/nix/store/22222222222222222222222222222222-nixos-system-h-hand")

// driftedBody is a host that was moved to the new system, and on which somebody has activated
// another one since.
func driftedBody(t *testing.T) *body {
	t.Helper()
	b := newBody(t)
	b.units = true
	b.live(t, b.boot)
	b.wantEnd(t, nfv1.AttemptSucceeded, nfv1.ReasonCompleted)
	b.running, b.actions, b.events = byHand, nil, nil
	b.drift = nfv1.DriftCorrect
	return b
}

// TestDriftIsReportedOrCorrected as the Host's policy says.
func TestDriftIsReportedOrCorrected(t *testing.T) {
	for name, tc := range map[string]struct {
		prepare func(*body)
		want    nix.StorePath
		drifted metav1.ConditionStatus
		events  []string
		message string
	}{
		"report":  {func(b *body) { b.drift = nfv1.DriftReport }, byHand, metav1.ConditionTrue, nil, "runs; the last move was to"},
		"correct": {func(*body) {}, newSystem, metav1.ConditionFalse, []string{"DriftCorrected"}, ""},
		"cannot":  {func(b *body) { b.bad[newSystem] = true }, byHand, metav1.ConditionTrue, []string{"DriftNotCorrected"}, "RolledBack, HealthCheckFailed"},
		"not trusted": {func(b *body) {
			b.fetchErr = &Refusal{Reason: nfv1.ReasonUntrustedSignature, Err: errors.New("not signed")}
		}, byHand, metav1.ConditionTrue, []string{"DriftNotCorrected"}, "Refused, UntrustedSignature: not signed"},
		"nothing to do": {func(b *body) { b.running = newSystem }, newSystem, metav1.ConditionFalse, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			b := driftedBody(t)
			tc.prepare(b)
			b.live(t, b.boot)
			if b.running != tc.want {
				t.Errorf("%s runs; %s", b.running, b.story())
			}
			c := meta.FindStatusCondition(b.last.Conditions, nfv1.ConditionDrifted)
			if c == nil || c.Status != tc.drifted || !strings.Contains(c.Message, tc.message) {
				t.Errorf("%+v", c)
			}
			if diff := cmp.Diff(tc.events, b.events); diff != "" {
				t.Error(diff)
			}
			// The order was carried out, and still is what the attempt reports.
			if a := b.last.Attempt; a.Outcome != nfv1.AttemptSucceeded || a.RolloutUID != "rollout" || len(b.last.History) != 1 {
				t.Errorf("the outcome of the order is now %+v, with %d in the history", a, len(b.last.History))
			}
			// It is not tried again and again.
			done := len(b.actions)
			b.live(t, b.boot)
			if len(b.actions) != done {
				t.Errorf("it did more: %v", b.actions[done:])
			}
		})
	}
}

// TestDriftIsLeftAlone where something else comes first, or somebody has to look.
func TestDriftIsLeftAlone(t *testing.T) {
	for name, change := range map[string]func(*Machine){
		"dry run":            func(m *Machine) { m.DryRun = true },
		"maintenance":        func(m *Machine) { m.host.Spec.Lifecycle = nfv1.LifecycleMaintenance },
		"an order waits":     func(m *Machine) { m.host.Spec.Desired.Revision = 2 },
		"an attempt is open": func(m *Machine) { m.journal.Open = &OpenAttempt{} },
		"another Host":       func(m *Machine) { m.host.UID = "another" },
		"a failed way back":  func(m *Machine) { m.journal.Last.Reason = nfv1.ReasonRollbackFailed },
		"never moved":        func(m *Machine) { m.journal.Good = "" },
	} {
		t.Run(name, func(t *testing.T) {
			b := driftedBody(t)
			m := b.start(t, b.boot)
			if _, yes := m.drifted(); !yes {
				t.Fatal("there is no drift")
			}
			change(m)
			if _, yes := m.drifted(); yes {
				t.Error("it would be corrected")
			}
		})
	}
}

// TestOtherDriftIsCorrectedAgain: what could not be corrected is remembered for the system
// that runs, not for ever.
func TestOtherDriftIsCorrectedAgain(t *testing.T) {
	b := driftedBody(t)
	b.bad[newSystem] = true
	b.live(t, b.boot)
	b.bad[newSystem] = false
	b.running = oldSystem
	b.live(t, b.boot)
	if b.running != newSystem {
		t.Errorf("%s runs; %s", b.running, b.story())
	}
}

// TestCorrectionIsCutShort at each of its actions, before and after, in each way: the host
// ends on one of the two systems, at rest, with nobody left to go back, and the outcome of
// the order stays.
func TestCorrectionIsCutShort(t *testing.T) {
	cells := 0
	for _, f := range []fault{killProcess, losePower, fireDeadMan} {
		for _, after := range []bool{false, true} {
			for at := 0; ; at++ {
				b := driftedBody(t)
				b.fault, b.faultAfter, b.faultAt = f, after, at
				what := fmt.Sprintf("%s at %d (after: %v)", f, at, after)
				rest := false
				for range 12 {
					if rest = !b.live(t, b.boot); rest && b.last.Phase == nfv1.HostPhaseIdle {
						break
					}
				}
				if b.faultAt > -2 {
					break
				}
				cells++
				if !rest || b.running != newSystem && b.running != byHand || b.profile.Path != newSystem || b.bootDefault != newSystem || len(b.timers) > 0 {
					t.Fatalf("%s: at rest %v, %s runs, timers %v: %s", what, rest, b.running, b.timers, b.story())
				}
				if a := b.last.Attempt; a.Outcome != nfv1.AttemptSucceeded || a.RolloutUID != "rollout" {
					t.Fatalf("%s: the order's outcome is %+v", what, a)
				}
			}
		}
	}
	t.Logf("%d cells", cells)
}

// TestNotices are what an operator should know, once.
func TestNotices(t *testing.T) {
	status := func(conditions ...string) nfv1.HostStatus {
		var s nfv1.HostStatus
		for _, c := range conditions {
			kind, state, _ := strings.Cut(c, "=")
			s.Conditions = append(s.Conditions, metav1.Condition{Type: kind, Status: metav1.ConditionStatus(state), Message: "because"})
		}
		return s
	}
	for name, tc := range map[string]struct {
		before, after nfv1.HostStatus
		want          []queuedEvent
	}{
		"falls ill":         {status("Healthy=True"), status("Healthy=False"), []queuedEvent{{"Warning", "Unhealthy", "because"}}},
		"still ill":         {status("Healthy=False"), status("Healthy=False"), nil},
		"well again":        {status("Healthy=False"), status("Healthy=True"), []queuedEvent{{"Normal", "Healthy", "no longer: because"}}},
		"well at first":     {status(), status("Healthy=True", "Drifted=False", "RebootRequired=False"), nil},
		"ill at first":      {status(), status("Healthy=False"), []queuedEvent{{"Warning", "Unhealthy", "because"}}},
		"not known":         {status("Healthy=True"), status("Healthy=Unknown"), nil},
		"drifts":            {status("Drifted=False"), status("Drifted=True"), []queuedEvent{{"Warning", "Drifted", "because"}}},
		"drifts no more":    {status("Drifted=True"), status("Drifted=False"), []queuedEvent{{"Normal", "DriftEnded", "no longer: because"}}},
		"needs a reboot":    {status(), status("RebootRequired=True"), []queuedEvent{{"Warning", "RebootRequired", "because"}}},
		"has been rebooted": {status("RebootRequired=True"), status("RebootRequired=False"), nil},
		"two at once":       {status(), status("Healthy=False", "Drifted=True"), []queuedEvent{{"Warning", "Unhealthy", "because"}, {"Warning", "Drifted", "because"}}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, notices(tc.before, tc.after), cmp.AllowUnexported(queuedEvent{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}
