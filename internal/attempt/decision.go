// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package attempt

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/nixfleet/nixfleet/internal/durable"
)

// Decision is what becomes of an attempt. It is made once.
type Decision string

// Decisions.
const (
	// Undecided: nobody has decided yet.
	Undecided Decision = ""
	// Commit: the new system stays. Only an agent that has confirmed decides so.
	Commit Decision = "commit"
	// Rollback: the host goes back.
	Rollback Decision = "rollback"
)

const (
	decisionName  = "decision"
	withdrawnMark = "withdrawn"
)

// proposal is the file that a decision is linked from. It is written with the plan: to
// decide takes no room for data then, so that a host with a full disk can go back.
func (d Dir) proposal(v Decision) string { return filepath.Join(d.path, "propose-"+string(v)) }

func (d Dir) prepareDecisions() error {
	for _, v := range []Decision{Commit, Rollback} {
		if err := durable.WriteFile(d.path, filepath.Base(d.proposal(v)), []byte(v+"\n")); err != nil {
			return err
		}
	}
	return nil
}

// Decide makes the decision, unless it was made before, and answers the one that holds.
// Of any number of processes that decide at the same time one wins, and all learn which:
// a link is made exclusively. The answer is durable when it is given, even by a process
// that lost to one that was killed.
func (d Dir) Decide(v Decision) (Decision, error) {
	if v != Commit && v != Rollback {
		return Undecided, fmt.Errorf("decide attempt %d: %q is no decision", d.number, v)
	}
	err := os.Link(d.proposal(v), filepath.Join(d.path, decisionName))
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return Undecided, fmt.Errorf("decide attempt %d: %w", d.number, err)
	}
	if err := durable.SyncDir(d.path); err != nil {
		return Undecided, fmt.Errorf("decide attempt %d: %w", d.number, err)
	}
	return d.Decision()
}

// Decision is the decision that was made; Undecided if none was.
func (d Dir) Decision() (Decision, error) {
	data, err := d.bytes(decisionName)
	if errors.Is(err, fs.ErrNotExist) {
		return Undecided, nil
	}
	if err != nil {
		return Undecided, fmt.Errorf("read the decision about attempt %d: %w", d.number, err)
	}
	switch v := Decision(strings.TrimSpace(string(data))); v {
	case Commit, Rollback:
		return v, nil
	default:
		return Undecided, fmt.Errorf("read the decision about attempt %d: %q is none", d.number, v)
	}
}

// Withdraw takes a commit back that could not be carried out. The agent alone does so, as
// a decision of its own: a timer that fires later must not undo a commit.
func (d Dir) Withdraw() error { return d.mark(withdrawnMark) }

// MayRollBack reports whether the host is to go back: it was decided so, or a commit was
// withdrawn.
func (d Dir) MayRollBack() (bool, error) {
	v, err := d.Decision()
	if err != nil || v == Rollback {
		return err == nil, err
	}
	withdrawn, err := d.marked(withdrawnMark)
	return withdrawn && v == Commit, err
}
