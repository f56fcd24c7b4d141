// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package agent

import (
	"context"
	"errors"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

// TestSwitchThatCutsTheNetworkIsUndone sees that "could not be reached before" means
// before the activation, not after it.
func TestSwitchThatCutsTheNetworkIsUndone(t *testing.T) {
	b := newBody(t)
	b.onTest = func() { b.reachable, b.confirmErr = false, context.DeadlineExceeded }
	b.live(t, "boot-1")
	b.wantEnd(t, nfv1.AttemptRolledBack, nfv1.ReasonConfirmTimeout)
}

// TestJournalFailsAtEachWrite fills the disk at each write of a move: the host ends whole
// on one of the two systems and says so.
func TestJournalFailsAtEachWrite(t *testing.T) {
	for name, prepare := range map[string]func(*body){
		"healthy":   func(*body) {},
		"unhealthy": func(b *body) { b.bad[newSystem] = true },
	} {
		for n := 1; ; n++ {
			b := newBody(t)
			prepare(b)
			b.failSave = n
			b.live(t, "boot-1")
			if b.saves < n {
				break
			}
			if b.running != b.profile.Path {
				t.Fatalf("%s, write %d: %s runs and the profile names %s; actions %v", name, n, b.running, b.profile.Path, b.actions)
			}
			if n <= 2 && len(b.withoutJournal()) > 0 {
				t.Fatalf("%s, write %d: the host was changed without a journal: %v", name, n, b.actions)
			}
			if !strings.Contains(everything(b.last), errDiskFull.Error()) && b.saves > n+1 && b.last.Attempt.Outcome != nfv1.AttemptRolledBack {
				t.Fatalf("%s, write %d: nobody says why: %s", name, n, everything(b.last))
			}
			// The next life, with a disk that has room again, comes to rest.
			b.failSave = 0
			b.live(t, "boot-1")
			if b.last.Phase != nfv1.HostPhaseIdle || b.running != b.profile.Path {
				t.Fatalf("%s, write %d, later: %s, %s runs; actions %v", name, n, b.last.Phase, b.running, b.actions)
			}
		}
	}
}

func (b *body) withoutJournal() []string {
	var changes []string
	for _, a := range b.actions {
		if a != "journal" {
			changes = append(changes, a)
		}
	}
	return changes
}

// everything is all text in a status that a person would read.
func everything(s nfv1.HostStatus) string {
	var all []string
	if s.Attempt != nil {
		all = append(all, s.Attempt.Message)
	}
	for _, c := range s.Conditions {
		all = append(all, c.Message)
	}
	return strings.Join(all, "\n")
}

// TestNewerOrderEndsFetchOnly gives a fetch up, and nothing that comes after it.
func TestNewerOrderEndsFetchOnly(t *testing.T) {
	b := newBody(t)
	m := b.start(t, "boot-1")
	if err := m.begin(m.host); err != nil {
		t.Fatal(err)
	}
	b.onFetch = func(ctx context.Context) error {
		m.giveUp()
		<-ctx.Done()
		return ctx.Err()
	}
	if err := m.move(t.Context()); !errors.Is(err, errGivenUp) {
		t.Fatalf("error %v", err)
	}
	if changes := b.withoutJournal(); len(changes) > 0 || m.journal.Last != nil {
		t.Fatalf("changed %v, ended %+v", changes, m.journal.Last)
	}
	newer := order1()
	newer.Spec.Desired.Revision = 2
	if got := decide(m.journal, newer); got != orderMove {
		t.Fatalf("decided %d", got)
	}
	m.host = newer
	if err := m.begin(newer); err != nil {
		t.Fatal(err)
	}
	b.onFetch, b.onTest = nil, m.giveUp
	if err := m.move(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.wantEnd(t, nfv1.AttemptSucceeded, nfv1.ReasonCompleted)
}

func TestModeBootIsRefused(t *testing.T) {
	b := newBody(t)
	m := b.start(t, "boot-1")
	m.host.Spec.Activation.Mode = nfv1.ActivationModeBoot
	if err := m.begin(m.host); err != nil {
		t.Fatal(err)
	}
	if err := m.move(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.wantEnd(t, nfv1.AttemptRefused, nfv1.ReasonUnsupported)
	if changes := b.withoutJournal(); len(changes) > 0 {
		t.Errorf("changed %v", changes)
	}
}

// TestFewReports counts what is written, beside the confirmation: the start, a roll-back
// and the outcome.
func TestFewReports(t *testing.T) {
	for name, tc := range map[string]struct {
		prepare func(*body)
		most    int
	}{
		"healthy":   {func(*body) {}, 2},
		"unhealthy": {func(b *body) { b.bad[newSystem] = true }, 3},
		"refused":   {func(b *body) { b.fetchErr = &Refusal{Reason: nfv1.ReasonWrongHost, Err: errors.New("x")} }, 2},
	} {
		b := newBody(t)
		tc.prepare(b)
		m := b.start(t, "boot-1")
		if err := m.begin(m.host); err != nil {
			t.Fatal(err)
		}
		if err := m.move(t.Context()); err != nil {
			t.Fatal(err)
		}
		if b.reports > tc.most {
			t.Errorf("%s: %d reports, want at most %d", name, b.reports, tc.most)
		}
	}
}

// TestRestReportsChangesOnly looks at a host at rest: nothing is said until something
// changes, and then it is said once.
func TestRestReportsChangesOnly(t *testing.T) {
	b := newBody(t)
	b.live(t, "boot-1")
	m := b.start(t, "boot-1")
	m.rest(t.Context())
	steps := []struct {
		name   string
		change func()
		more   int
		holds  func() bool
	}{
		{"nothing", func() {}, 0, func() bool { return true }},
		{"a service dies", func() { b.bad[newSystem] = true }, 1, func() bool { return meta.IsStatusConditionFalse(b.last.Conditions, nfv1.ConditionHealthy) }},
		{"it stays dead", func() {}, 0, func() bool { return true }},
		{"it comes back", func() { b.bad[newSystem] = false }, 1, func() bool { return meta.IsStatusConditionTrue(b.last.Conditions, nfv1.ConditionHealthy) }},
		{"somebody activates something", func() { b.running = oldSystem }, 1, func() bool { return meta.IsStatusConditionTrue(b.last.Conditions, nfv1.ConditionDrifted) }},
		{"it stays so", func() {}, 0, func() bool { return true }},
	}
	for _, s := range steps {
		s.change()
		before := b.reports
		m.rest(t.Context())
		if b.reports-before != s.more || !s.holds() {
			t.Fatalf("%s: %d reports, want %d; %+v", s.name, b.reports-before, s.more, b.last.Conditions)
		}
	}
}

// TestFirstSystemEver fails on a host that has nothing to go back to.
func TestFirstSystemEver(t *testing.T) {
	b := newBody(t)
	b.running, b.profile.Path, b.profile.Generation, b.profile.Newest = "", "", 0, 0
	b.exit[newSystem] = 1
	b.live(t, "boot-1")
	a := b.last.Attempt
	if a.Outcome != nfv1.AttemptFailed || a.Reason != nfv1.ReasonRollbackFailed || !strings.Contains(a.Message, "nothing ran before") || b.profile.Path != "" {
		t.Errorf("attempt %+v, profile %q", a, b.profile.Path)
	}
}

// TestRollbackThatFails says that the host is not where it was.
func TestRollbackThatFails(t *testing.T) {
	b := newBody(t)
	b.bad[newSystem], b.exit[oldSystem] = true, 4
	b.live(t, "boot-1")
	a := b.last.Attempt
	if a.Outcome != nfv1.AttemptFailed || a.Reason != nfv1.ReasonRollbackFailed || !strings.Contains(a.Message, "exited with 4") {
		t.Errorf("attempt %+v", a)
	}
}
