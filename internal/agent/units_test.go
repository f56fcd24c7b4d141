// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package agent

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

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

// TestUnitsAtRest are looked at while nothing is asked. What failed when the system was
// committed is known; what changes is reported, once.
func TestUnitsAtRest(t *testing.T) {
	b := newBody(t)
	b.units, b.broken = true, []string{"backup.service"}
	b.breaks[newSystem], b.breaksToo = true, "backup.service"
	b.exit[newSystem] = 4
	b.broken = append(b.broken, "web.service")
	b.live(t, "boot-1")
	b.wantEnd(t, nfv1.AttemptSucceeded, nfv1.ReasonCompleted)

	m := b.start(t, "boot-1") // the journal keeps it
	m.report(false)
	for _, look := range []struct {
		broken  []string
		reports int
		healthy metav1.ConditionStatus
		message string
	}{
		{[]string{"backup.service", "web.service"}, 1, metav1.ConditionTrue, ""},
		{[]string{"backup.service", "web.service"}, 0, metav1.ConditionTrue, ""},
		{[]string{"backup.service", "db.service"}, 1, metav1.ConditionFalse, "db.service failed"},
		{[]string{"backup.service", "db.service"}, 0, metav1.ConditionFalse, "db.service failed"},
		{nil, 1, metav1.ConditionTrue, ""},
		{[]string{"web.service"}, 0, metav1.ConditionTrue, ""},
	} {
		b.broken = look.broken
		before := b.reports
		m.rest(t.Context())
		c := meta.FindStatusCondition(b.last.Conditions, nfv1.ConditionHealthy)
		if b.reports-before != look.reports || c.Status != look.healthy || !strings.Contains(c.Message, look.message) {
			t.Errorf("%v: %d reports, %+v", look.broken, b.reports-before, c)
		}
	}
}

// TestUnitsThatFailWhileASystemIsProvedAreSeen: the baseline at rest is what had failed
// before the activation, not what has failed by the end of it.
func TestUnitsThatFailWhileASystemIsProvedAreSeen(t *testing.T) {
	b := newBody(t)
	b.units = true
	b.onConfirm = func() { b.broken = []string{"late.service"} }
	b.live(t, "boot-1")
	b.wantEnd(t, nfv1.AttemptSucceeded, nfv1.ReasonCompleted)
	m := b.start(t, "boot-1")
	m.rest(t.Context())
	if c := meta.FindStatusCondition(b.last.Conditions, nfv1.ConditionHealthy); c.Status != metav1.ConditionFalse {
		t.Errorf("%+v", c)
	}
}

// TestNothingIsLookedAtDuringAnAttempt keeps health checks from what is half changed.
func TestNothingIsLookedAtDuringAnAttempt(t *testing.T) {
	b := newBody(t)
	m := b.start(t, "boot-1")
	if err := m.begin(m.host); err != nil {
		t.Fatal(err)
	}
	b.probes = 0
	m.rest(t.Context())
	if b.probes > 0 || b.reports > 0 {
		t.Errorf("%d looks, %d reports", b.probes, b.reports)
	}
}
