// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package agent

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/attempt"
)

// closures are the systems of the crash matrix, and whether they are good.
var closures = map[string]struct {
	good    bool
	prepare func(*body)
}{
	"healthy":          {true, func(*body) {}},
	"new agent":        {true, func(b *body) { b.replaces[newSystem] = true }},
	"unhealthy":        {false, func(b *body) { b.bad[newSystem] = true }},
	"activation fails": {false, func(b *body) { b.exit[newSystem] = 1 }},
	"cuts the network": {false, func(b *body) { b.cut[newSystem] = true }},
	"breaks a unit":    {false, func(b *body) { b.breaks[newSystem], b.exit[newSystem] = true, 4 }},
	"no boot entry":    {false, func(b *body) { b.bootFails[newSystem] = true }},
}

// cell is one of the crash matrix.
type cell struct {
	closure string
	units   bool
	fault   fault
	after   bool
	at      int
}

func (c cell) String() string {
	return fmt.Sprintf("%s, units %v, %s at action %d (after: %v)", c.closure, c.units, c.fault, c.at, c.after)
}

// TestCrashMatrix has something go wrong before and after every action of an attempt:
// every journal write, every call of a system's program, every timer, every decision
// around them. The list of actions is what the attempt does, so that a step which is added
// cannot be left out. The host ends on one of the two systems, whole, and says so.
func TestCrashMatrix(t *testing.T) {
	seen := map[nfv1.HostPhase]bool{}
	cells := 0
	for closure := range closures {
		for _, units := range []bool{false, true} {
			for _, f := range []fault{killProcess, losePower, fireDeadMan} {
				for _, after := range []bool{false, true} {
					for at := 0; ; at++ {
						c := cell{closure, units, f, after, at}
						b := newBody(t)
						if !c.play(t, b, seen) {
							break
						}
						cells++
						c.judge(t, b)
					}
				}
			}
		}
	}
	for _, step := range steps {
		if !seen[step] {
			t.Errorf("nothing ever went wrong in step %s", step)
		}
	}
	t.Logf("%d cells", cells)
}

// play runs the attempt with its fault until the host is at rest. It answers false if the
// attempt was over before.
func (c cell) play(t *testing.T, b *body, seen map[nfv1.HostPhase]bool) bool {
	t.Helper()
	closures[c.closure].prepare(b)
	b.units, b.fault, b.faultAfter, b.faultAt = c.units, c.fault, c.after, c.at
	for range 10 {
		ended := !b.live(t, b.boot)
		seen[b.stepNow(t)] = true
		if !ended {
			continue
		}
		if b.live(t, b.boot) { // it starts once more, at rest
			continue
		}
		if b.last.Phase == nfv1.HostPhaseIdle {
			return b.faultAt <= -2
		}
	}
	t.Fatalf("%s: it never ends: %s", c, b.story())
	return false
}

// stepNow is the step that the journal names.
func (b *body) stepNow(t *testing.T) nfv1.HostPhase {
	t.Helper()
	m := b.start(t, b.boot)
	if m.journal.Open == nil {
		return nfv1.HostPhaseIdle
	}
	return m.journal.Open.Step
}

func (b *body) story() string { return strings.Join(b.actions, ", ") }

func (c cell) judge(t *testing.T, b *body) {
	t.Helper()
	a := b.last.Attempt
	if a == nil || a.Outcome == "" {
		t.Fatalf("%s: no end: %+v; %s", c, a, b.story())
	}
	want := oldSystem
	if a.Outcome == nfv1.AttemptSucceeded {
		want = newSystem
	}
	if b.running != want || b.profile.Path != want || b.bootDefault != want {
		t.Fatalf("%s: says %s (%s), but %s runs, the profile names %s, and %s boots; %s",
			c, a.Outcome, a.Message, b.running.Name(), b.profile.Path.Name(), b.bootDefault.Name(), b.story())
	}
	good := closures[c.closure].good
	if want == newSystem && !good {
		t.Fatalf("%s: ended on a bad system; %s", c, b.story())
	}
	if want == oldSystem && good && c.fault == killProcess && !c.units {
		t.Fatalf("%s: the end of the agent was taken for the system's fault: %+v; %s", c, a, b.story())
	}
	if a.Reason == nfv1.ReasonRollbackFailed || a.Reason == nfv1.ReasonInternalError {
		t.Fatalf("%s: ended as %s: %s; %s", c, a.Reason, a.Message, b.story())
	}
	if len(b.timers) > 0 {
		t.Fatalf("%s: timers are left: %v; %s", c, b.timers, b.story())
	}
	c.judgeDecisions(t, b, a.Outcome)
}

// judgeDecisions: the last attempt was committed if and only if it succeeded, and none is
// left that a timer or a person could still undo.
func (c cell) judgeDecisions(t *testing.T, b *body, outcome nfv1.AttemptOutcome) {
	t.Helper()
	numbers, err := attempt.Numbers(b.dir)
	if err != nil || len(numbers) == 0 {
		t.Fatalf("%s: no attempt on disk, %v", c, err)
	}
	for i, n := range numbers {
		d := attempt.At(b.dir, n)
		if _, err := d.Plan(); err != nil {
			continue // it was never planned
		}
		decision, err := d.Decision()
		back, berr := d.MayRollBack()
		if err != nil || berr != nil {
			t.Fatal(err, berr)
		}
		committed := decision == attempt.Commit && !back
		if last := i == len(numbers)-1; committed != (last && outcome == nfv1.AttemptSucceeded) {
			t.Fatalf("%s: %s, and attempt %d is decided as %q, withdrawn %v; %s", c, outcome, n, decision, back, b.story())
		}
	}
}

// TestMatrixCoversWhatAnAttemptDoes names the actions that the matrix has to strike.
func TestMatrixCoversWhatAnAttemptDoes(t *testing.T) {
	b := newBody(t)
	b.units = true
	b.live(t, b.boot)
	b.wantEnd(t, nfv1.AttemptSucceeded, nfv1.ReasonCompleted)
	for _, kind := range []string{"journal", "preflight", "arm 1", "test", "arm 2", "disarm 1", "freshen", "set", "boot", "disarm 2"} {
		if !slices.ContainsFunc(b.actions, func(a string) bool { return strings.HasPrefix(a, kind) }) {
			t.Errorf("no %s in %s", kind, b.story())
		}
	}
	if arm, test := slices.Index(b.actions, "arm 1"), slices.Index(b.actions, "test "+newSystem.Name()); arm > test {
		t.Errorf("activated before the dead man's switch was armed: %s", b.story())
	}
	if two, one := slices.Index(b.actions, "arm 2"), slices.Index(b.actions, "disarm 1"); two > one {
		t.Errorf("one timer was stopped before the next was armed: %s", b.story())
	}
}

// TestReplacedAgentJoins activates a system that puts another agent in place of the one
// that began: that one goes on where it was, once, and nothing is undone.
func TestReplacedAgentJoins(t *testing.T) {
	b := newBody(t)
	b.units = true
	b.replaces[newSystem] = true
	if !b.live(t, b.boot) {
		t.Fatal("the agent was not replaced")
	}
	b.live(t, b.boot)
	b.wantEnd(t, nfv1.AttemptSucceeded, nfv1.ReasonCompleted)
	if n := strings.Count(b.story(), "test "); n != 1 || strings.Contains(b.story(), "back ") {
		t.Errorf("activated %d times: %s", n, b.story())
	}
}
