// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package agent

import (
	"errors"
	"strings"
	"testing"
	"time"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

// TestDryRunChangesNothing but says what it would do, or why it would not.
func TestDryRunChangesNothing(t *testing.T) {
	for name, tc := range map[string]struct {
		prepare func(*body)
		outcome nfv1.AttemptOutcome
		reason  string
		part    string
	}{
		"good": {func(*body) {}, nfv1.AttemptRefused, "DryRun", newSystem.String() + " would be activated, proved by 1 health checks and a report within 2m0s"},
		"not for here": {func(b *body) {
			b.preflight = &Refusal{Reason: nfv1.ReasonAgentMissing, Err: errors.New("it has no agent")}
		}, nfv1.AttemptRefused, nfv1.ReasonAgentMissing, "dry run: it has no agent"},
		"not known": {func(b *body) { b.preflight = errors.New("cannot look") }, nfv1.AttemptFailed, nfv1.ReasonInternalError, "dry run: cannot look"},
		"untrusted": {func(b *body) {
			b.fetchErr = &Refusal{Reason: nfv1.ReasonUntrustedSignature, Err: errors.New("not signed")}
		}, nfv1.AttemptRefused, nfv1.ReasonUntrustedSignature, "not signed"},
		"runs already": {func(b *body) { b.running, b.profile.Path = newSystem, newSystem }, nfv1.AttemptSucceeded, nfv1.ReasonAlreadyRunning, ""},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBody(t)
			tc.prepare(b)
			before := b.running
			m := b.start(t, "boot-1")
			m.DryRun = true
			if err := errors.Join(m.begin(m.host), m.move(t.Context())); err != nil {
				t.Fatal(err)
			}
			if a := b.last.Attempt; a.Outcome != tc.outcome || a.Reason != tc.reason || !strings.Contains(a.Message, tc.part) {
				t.Errorf("got %+v", a)
			}
			if b.running != before || b.profile.Path != before {
				t.Errorf("%s runs", b.running)
			}
			for _, action := range b.actions {
				if action != "journal" && action != "preflight" {
					t.Errorf("it did %s", action)
				}
			}
			if len(b.timers) > 0 {
				t.Error("it armed a timer")
			}
		})
	}
}

// TestDryRunNeedsAHostAtRest does not begin where an attempt is open or the journal is lost,
// since it could not bring that to an end.
func TestDryRunNeedsAHostAtRest(t *testing.T) {
	b := newBody(t)
	b.killIn = "test"
	b.live(t, "boot-1")
	journal := NewJournalFile(b.dir, time.Now)
	m := &Machine{}
	if err := m.mayRehearse(journal); !errors.Is(err, errNotADryRun) || !strings.Contains(err.Error(), "attempt 1 is open") {
		t.Errorf("got %v", err)
	}
	b.live(t, "boot-1")
	if err := m.mayRehearse(journal); err != nil {
		t.Errorf("at rest: %v", err)
	}
}
