// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package agent

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/attempt"
)

// TestNewlyFailedUnitsCondemnASystem goes back when a unit fails that was well before, and
// not when it had failed before, or may fail.
func TestNewlyFailedUnitsCondemnASystem(t *testing.T) {
	for name, tc := range map[string]struct {
		before  []string
		policy  nfv1.FailedUnitsPolicy
		without bool // systemd does not run the host
		outcome nfv1.AttemptOutcome
		reason  string
	}{
		"newly failed":     {outcome: nfv1.AttemptRolledBack, reason: nfv1.ReasonHealthCheckFailed},
		"had failed":       {before: []string{"web.service"}, outcome: nfv1.AttemptSucceeded, reason: nfv1.ReasonCompleted},
		"another had":      {before: []string{"db.service"}, outcome: nfv1.AttemptRolledBack, reason: nfv1.ReasonHealthCheckFailed},
		"may fail":         {policy: nfv1.FailedUnitsIgnore, outcome: nfv1.AttemptSucceeded, reason: nfv1.ReasonCompleted},
		"nobody can look":  {without: true, outcome: nfv1.AttemptRolledBack, reason: nfv1.ReasonActivationFailed},
		"they may, anyhow": {without: true, policy: nfv1.FailedUnitsIgnore, outcome: nfv1.AttemptSucceeded, reason: nfv1.ReasonCompleted},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBody(t)
			b.units, b.broken = !tc.without, tc.before
			b.breaks[newSystem], b.exit[newSystem] = true, 4
			b.policy = tc.policy
			b.live(t, "boot-1")
			b.wantEnd(t, tc.outcome, tc.reason)
			if tc.reason == nfv1.ReasonHealthCheckFailed && !strings.Contains(b.last.Attempt.Message, "web.service failed") {
				t.Errorf("it says %q", b.last.Attempt.Message)
			}
		})
	}
}

// TestPlanHasTheUnitsThatHadFailed: the activation makes systemd forget them, and who goes
// back has only the plan. The dead man's switch waits for the look at them.
func TestPlanHasTheUnitsThatHadFailed(t *testing.T) {
	b := newBody(t)
	b.units, b.broken = true, []string{"backup.service"}
	b.live(t, "boot-1")
	p, err := attempt.At(b.dir, 1).Plan()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"backup.service"}, p.Baseline.FailedUnits); diff != "" || !p.Baseline.UnitsChecked {
		t.Errorf("%+v", p.Baseline)
	}
	if p.HealthBudgetSeconds != 80 {
		t.Errorf("the health checks get %d s; the look at the units alone may take 70", p.HealthBudgetSeconds)
	}
}

// TestUnknownUnitsEndAnAttempt before anything is changed: nobody could tell later what
// the system broke.
func TestUnknownUnitsEndAnAttempt(t *testing.T) {
	b := newBody(t)
	b.units, b.baselineErr = true, errors.New("connect to systemd: connection refused")
	b.live(t, "boot-1")
	b.wantEnd(t, nfv1.AttemptFailed, nfv1.ReasonInternalError)
	if len(b.withoutJournal()) > 0 || !strings.Contains(b.last.Attempt.Message, "nothing was changed: connect to systemd") {
		t.Errorf("%v; %+v", b.actions, b.last.Attempt)
	}
}

// TestUnitsAfterGoingBack are reported if they do not come back with the old system.
func TestUnitsAfterGoingBack(t *testing.T) {
	b := newBody(t)
	b.units = true
	b.breaks[newSystem], b.exit[newSystem] = true, 4
	b.staysBroken = true
	for b.live(t, b.boot) { // by a reboot
		if len(b.actions) > 1000 {
			t.Fatal("it never ends")
		}
	}
	if !strings.Contains(b.last.Attempt.Message, "after going back, 1 of 2 health checks failed") {
		t.Errorf("it says %q", b.last.Attempt.Message)
	}
}
