// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package agent

import (
	"errors"
	"strings"
	"testing"
	"time"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/activation"
	"github.com/nixfleet/nixfleet/internal/attempt"
	"github.com/nixfleet/nixfleet/internal/nix"
)

func TestRecoverFrom(t *testing.T) {
	tests := map[string]struct {
		step    nfv1.HostPhase
		running nix.StorePath
		decided attempt.Decision
		back    bool // a commit was withdrawn
		edit    func(*OpenAttempt)
		boot    string
		want    recovery
		reason  string
	}{
		"nothing was changed":               {step: nfv1.HostPhaseFetching, running: oldSystem, want: recoverRetry},
		"nothing was changed, rebooted":     {step: nfv1.HostPhaseFetching, running: oldSystem, boot: "b2", want: recoverRetry},
		"nothing was planned":               {step: nfv1.HostPhaseActivating, running: oldSystem, edit: func(o *OpenAttempt) { o.Number = 1 }, want: recoverRetry},
		"in the activation":                 {step: nfv1.HostPhaseActivating, running: oldSystem, want: recoverJoin},
		"in the activation, relinked":       {step: nfv1.HostPhaseActivating, running: newSystem, want: recoverJoin},
		"in the activation, undone":         {step: nfv1.HostPhaseActivating, running: oldSystem, decided: attempt.Rollback, want: recoverUndo},
		"in the activation, rebooted":       {step: nfv1.HostPhaseActivating, running: oldSystem, boot: "b2", want: recoverUndo, reason: nfv1.ReasonHostRebooted},
		"too often":                         {step: nfv1.HostPhaseActivating, running: oldSystem, edit: func(o *OpenAttempt) { o.Interruptions = 2 }, want: recoverUndo, reason: nfv1.ReasonInterrupted},
		"in the health checks":              {step: nfv1.HostPhaseVerifying, running: newSystem, want: recoverProve},
		"in the health checks, too often":   {step: nfv1.HostPhaseVerifying, running: newSystem, edit: func(o *OpenAttempt) { o.Interruptions = 2 }, want: recoverUndo, reason: nfv1.ReasonInterrupted},
		"in the health checks, rebooted":    {step: nfv1.HostPhaseVerifying, running: oldSystem, boot: "b2", want: recoverUndo, reason: nfv1.ReasonHostRebooted},
		"in the health checks, not there":   {step: nfv1.HostPhaseVerifying, running: oldSystem, want: recoverAgain},
		"in the health checks, undone":      {step: nfv1.HostPhaseVerifying, running: oldSystem, decided: attempt.Rollback, want: recoverUndo},
		"undone, and it took a reboot":      {step: nfv1.HostPhaseVerifying, running: oldSystem, decided: attempt.Rollback, boot: "b2", want: recoverUndo, reason: nfv1.ReasonHostRebooted},
		"while it reported":                 {step: nfv1.HostPhaseConfirming, running: newSystem, want: recoverProve},
		"not decided":                       {step: nfv1.HostPhaseCommitting, running: newSystem, edit: func(o *OpenAttempt) { o.Number = 2 }, want: recoverProve},
		"decided by an agent without plans": {step: nfv1.HostPhaseCommitting, running: newSystem, want: recoverCommit},
		"decided":                           {step: nfv1.HostPhaseCommitting, running: newSystem, decided: attempt.Commit, want: recoverCommit},
		"decided too often":                 {step: nfv1.HostPhaseCommitting, running: newSystem, decided: attempt.Commit, edit: func(o *OpenAttempt) { o.Interruptions = 9 }, want: recoverCommit},
		"decided, booted into it":           {step: nfv1.HostPhaseCommitting, running: newSystem, decided: attempt.Commit, boot: "b2", want: recoverCommit},
		"decided, booted into the old one":  {step: nfv1.HostPhaseCommitting, running: oldSystem, decided: attempt.Commit, boot: "b2", want: recoverUndo, reason: nfv1.ReasonInterruptedCommit},
		"decided, something else runs":      {step: nfv1.HostPhaseCommitting, running: oldSystem, decided: attempt.Commit, want: recoverUndo, reason: nfv1.ReasonInterrupted},
		"withdrawn": {step: nfv1.HostPhaseRollingBack, running: newSystem, decided: attempt.Commit, back: true,
			edit: func(o *OpenAttempt) { o.Reason = nfv1.ReasonCommitFailed }, want: recoverUndo, reason: nfv1.ReasonCommitFailed},
		"while it went back": {
			step: nfv1.HostPhaseRollingBack, running: newSystem, edit: func(o *OpenAttempt) { o.Reason = nfv1.ReasonHealthCheckFailed },
			want: recoverUndo, reason: nfv1.ReasonHealthCheckFailed,
		},
		"while it went back, rebooted": {
			step: nfv1.HostPhaseRollingBack, running: oldSystem, boot: "b2", edit: func(o *OpenAttempt) { o.Reason = nfv1.ReasonHealthCheckFailed },
			want: recoverUndo, reason: nfv1.ReasonHealthCheckFailed,
		},
		"while it went back to begin again": {
			step: nfv1.HostPhaseRollingBack, running: newSystem, edit: func(o *OpenAttempt) { o.Reason, o.Again = nfv1.ReasonInterrupted, true },
			want: recoverAgain, reason: nfv1.ReasonInterrupted,
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			o := &OpenAttempt{HostAttempt: nfv1.HostAttempt{StorePath: nfv1.StorePath(newSystem)}, Step: tc.step, BootID: "b1"}
			if tc.edit != nil {
				tc.edit(o)
			}
			boot := tc.boot
			if boot == "" {
				boot = "b1"
			}
			f := facts{bootID: boot, running: tc.running, planned: o.Number != 1, decision: tc.decided, withdrawn: tc.back}
			what, reason, message := recoverFrom(o, f)
			if what != tc.want || tc.reason != "" && reason != tc.reason {
				t.Errorf("decided %d, %s (%s); want %d, %s", what, reason, message, tc.want, tc.reason)
			}
		})
	}
}

// openIn leaves an attempt in a step, as a killed agent does.
func (b *body) openIn(t *testing.T, step nfv1.HostPhase, edit func(*OpenAttempt)) {
	t.Helper()
	h := order1()
	o := &OpenAttempt{
		HostAttempt: nfv1.HostAttempt{Revision: 1, StorePath: nfv1.StorePath(newSystem), RolloutUID: "rollout"},
		Step:        step, Previous: oldSystem, PreviousProfile: b.profile, BootID: "boot-1", Timeout: time.Minute, Reachable: true,
	}
	if edit != nil {
		edit(o)
	}
	j := Journal{HostUID: h.UID, ObservedRevision: 1, Open: o, Host: remembered(h)}
	if err := NewJournalFile(b.dir, time.Now).Save(j); err != nil {
		t.Fatal(err)
	}
}

// TestSettlesWithoutControlPlane starts an agent that hears nothing: what is half done
// must not wait.
func TestSettlesWithoutControlPlane(t *testing.T) {
	for name, tc := range map[string]struct {
		step    nfv1.HostPhase
		running nix.StorePath
		want    nix.StorePath
		ends    nfv1.AttemptOutcome
	}{
		"half activated":  {nfv1.HostPhaseActivating, newSystem, oldSystem, ""},
		"going back":      {nfv1.HostPhaseRollingBack, newSystem, oldSystem, nfv1.AttemptRolledBack},
		"decided":         {nfv1.HostPhaseCommitting, newSystem, newSystem, nfv1.AttemptSucceeded},
		"could not prove": {nfv1.HostPhaseVerifying, newSystem, oldSystem, nfv1.AttemptRolledBack},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBody(t)
			b.running, b.confirmErr = tc.running, errNoHost
			b.openIn(t, tc.step, func(o *OpenAttempt) {
				if tc.step == nfv1.HostPhaseRollingBack {
					o.Reason, o.Message = nfv1.ReasonHealthCheckFailed, "web: down"
				}
			})
			m := b.start(t, "boot-1")
			m.host = m.journal.Host
			if err := m.resume(t.Context()); err != nil {
				t.Fatal(err)
			}
			if b.running != tc.want {
				t.Fatalf("%s runs; actions %v", b.running, b.actions)
			}
			if tc.ends == "" {
				if m.journal.Last != nil || m.journal.Open.Step != nfv1.HostPhaseFetching || m.journal.Open.Interruptions != 1 {
					t.Fatalf("journal %+v", m.journal)
				}
				return
			}
			if m.journal.Last == nil || m.journal.Last.Outcome != tc.ends {
				t.Fatalf("ended as %+v; actions %v", m.journal.Last, b.actions)
			}
		})
	}
}

// TestEndsLeftoversFirst sees that the run of a killed agent is ended before anything
// else happens, and that nothing happens if it cannot be.
func TestEndsLeftoversFirst(t *testing.T) {
	b := newBody(t)
	b.openIn(t, nfv1.HostPhaseActivating, nil)
	b.abandonErr = errors.New("its processes do not end")
	m := b.start(t, "boot-1")
	if err := m.resume(t.Context()); !errors.Is(err, b.abandonErr) {
		t.Fatalf("error %v", err)
	}
	if len(b.withoutJournal()) > 0 {
		t.Fatalf("the host was changed beside a run that goes on: %v", b.actions)
	}
	b.abandonErr = nil
	if err := m.resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	if b.abandoned[0] != string(activation.KindTest)+"-1" || b.running != oldSystem {
		t.Fatalf("ended %v; %s runs", b.abandoned, b.running)
	}
}

// TestCrashLoopEnds starts an agent that is killed in every activation: the system is
// held responsible in the end.
func TestCrashLoopEnds(t *testing.T) {
	b := newBody(t)
	lives := 0
	for ; lives < 20; lives++ {
		b.killIn = "test"
		if !b.live(t, "boot-1") {
			break
		}
	}
	if lives != maxInterruptions {
		t.Errorf("the system was tried %d times", lives)
	}
	b.wantEnd(t, nfv1.AttemptRolledBack, nfv1.ReasonInterrupted)
	if !strings.Contains(b.last.Attempt.Message, "3 times") {
		t.Errorf("message %q", b.last.Attempt.Message)
	}
}

// TestOneKillLosesNothing kills the agent once in mid-activation: the host is moved all
// the same, and the attempt tells.
func TestOneKillLosesNothing(t *testing.T) {
	b := newBody(t)
	b.killIn = "test"
	if !b.live(t, "boot-1") {
		t.Fatal("it was not killed")
	}
	b.live(t, "boot-1")
	b.wantEnd(t, nfv1.AttemptSucceeded, nfv1.ReasonCompleted)
}

func TestLostJournalGoesBackToTheProfile(t *testing.T) {
	b := newBody(t)
	b.running = newSystem
	m := b.start(t, "boot-1")
	m.distrust(t.Context(), &CorruptJournalError{Kept: "/x", Err: errors.New("unexpected end")})
	if b.running != oldSystem || !strings.Contains(m.problem, "went back") || !strings.Contains(m.problem, "/x") {
		t.Errorf("%s runs; problem %q", b.running, m.problem)
	}
	actions := len(b.actions)
	m.distrust(t.Context(), &CorruptJournalError{Kept: "/x", Err: errors.New("unexpected end")})
	if len(b.actions) != actions {
		t.Errorf("a host that runs what its profile names was changed: %v", b.actions[actions:])
	}
}

// TestLostJournalLearnsFromReports sees that an order which failed is not carried out
// again because the journal is gone.
func TestLostJournalLearnsFromReports(t *testing.T) {
	b := newBody(t)
	m := b.start(t, "boot-1")
	h := order1()
	h.Spec.Desired.Revision = 4
	h.Status = nfv1.HostStatus{
		ObservedRevision: 4,
		Attempt:          &nfv1.HostAttempt{Revision: 4, StorePath: nfv1.StorePath(newSystem), Outcome: nfv1.AttemptRolledBack, Reason: nfv1.ReasonHealthCheckFailed},
		History: []nfv1.HostAttempt{
			{Revision: 4, StorePath: nfv1.StorePath(newSystem), Outcome: nfv1.AttemptRolledBack},
			{Revision: 3, StorePath: nfv1.StorePath(oldSystem), Outcome: nfv1.AttemptSucceeded},
		},
	}
	m.adopt(h)
	if got := decide(m.journal, h); got != orderNothing {
		t.Errorf("decided %d", got)
	}
	if m.journal.Good != oldSystem || len(m.journal.History) != 2 {
		t.Errorf("journal %+v", m.journal)
	}
	// What the journal knows counts more.
	h.Status.ObservedRevision = 9
	m.adopt(h)
	if m.journal.ObservedRevision != 4 {
		t.Errorf("revision %d", m.journal.ObservedRevision)
	}
}
