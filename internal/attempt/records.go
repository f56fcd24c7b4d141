// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package attempt

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/nixfleet/nixfleet/internal/durable"
)

const (
	touchedMark  = "profile-touched"
	rebootedMark = "rebooted"
	closedMark   = "closed"
)

// Activation is what became of an activation. It is written when the helper begins and
// again when the system's program has ended.
type Activation struct {
	// BootID is the boot of the machine that it belongs to.
	BootID string `json:"bootID,omitempty"`

	// StartedAt and EndedAt are times of the host's clock, for people.
	StartedAt time.Time `json:"startedAt,omitzero"`
	EndedAt   time.Time `json:"endedAt,omitzero"`

	// Ended says that the program has ended, and that what follows is known.
	Ended bool `json:"ended,omitempty"`

	// ExitCode is its exit code; -1 if a signal ended it or it could not be run.
	ExitCode int `json:"exitCode"`

	// TimedOut tells that it was stopped because its time was over.
	TimedOut bool `json:"timedOut,omitempty"`

	// ScriptFailed tells that it said so of the activation script, whatever the exit code.
	ScriptFailed bool `json:"scriptFailed,omitempty"`

	// Output is the end of what it printed, and Error why it could not be run.
	Output string `json:"output,omitempty"`
	Error  string `json:"error,omitempty"`

	// ConfirmBy is when the second dead man's timer fires, in nanoseconds of
	// CLOCK_MONOTONIC; 0 if it was not armed.
	ConfirmBy int64 `json:"confirmBy,omitempty"`

	// Note says what the helper could not do besides.
	Note string `json:"note,omitempty"`
}

// RollbackOutcome is where a roll-back left the host.
type RollbackOutcome string

// Outcomes of a roll-back.
const (
	// RolledBack: what ran before runs.
	RolledBack RollbackOutcome = "Back"
	// Rebooting: the host reboots into what its boot default names.
	Rebooting RollbackOutcome = "Rebooting"
	// RollbackFailed: something else runs, and nothing more could be done.
	RollbackFailed RollbackOutcome = "Failed"
)

// RollbackRecord is what became of a roll-back. It is written when it begins and again
// when it has ended.
type RollbackRecord struct {
	// Trigger is who went back: agent, activation-timer, confirm-timer or a person.
	Trigger string `json:"trigger,omitempty"`

	// StartedAt and EndedAt are times of the host's clock, for people.
	StartedAt time.Time `json:"startedAt,omitzero"`
	EndedAt   time.Time `json:"endedAt,omitzero"`

	// Outcome is where it left the host; empty while it is under way.
	Outcome RollbackOutcome `json:"outcome,omitempty"`

	// Problems are what did not work.
	Problems []string `json:"problems,omitempty"`

	// Output is the end of what the previous system's program printed.
	Output string `json:"output,omitempty"`
}

// Activation reads the record of the activation; the zero value if it has not begun.
func (d Dir) Activation() (Activation, error) {
	var a Activation
	if err := d.read(activationName, &a); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Activation{}, fmt.Errorf("read what became of the activation: %w", err)
	}
	return a, nil
}

// SaveActivation writes the record of the activation.
func (d Dir) SaveActivation(a Activation) error {
	if err := d.write(activationName, a); err != nil {
		return fmt.Errorf("keep what became of the activation: %w", err)
	}
	return nil
}

// Rollback reads the record of the roll-back; the zero value if none has begun.
func (d Dir) Rollback() (RollbackRecord, error) {
	var r RollbackRecord
	if err := d.read(rollbackName, &r); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return RollbackRecord{}, fmt.Errorf("read what became of the roll-back: %w", err)
	}
	return r, nil
}

// SaveRollback writes the record of the roll-back.
func (d Dir) SaveRollback(r RollbackRecord) error {
	if err := d.write(rollbackName, r); err != nil {
		return fmt.Errorf("keep what became of the roll-back: %w", err)
	}
	return nil
}

// TouchProfile notes that the profile and the boot default may be changed from now on.
func (d Dir) TouchProfile() error { return d.mark(touchedMark) }

// ProfileTouched reports whether they may have been.
func (d Dir) ProfileTouched() (bool, error) { return d.marked(touchedMark) }

// Reboot notes that the host is rebooted to get back. It answers false if that was done
// before: it is done once an attempt.
func (d Dir) Reboot() (first bool, err error) {
	done, err := d.marked(rebootedMark)
	if err != nil || done {
		return false, err
	}
	return true, d.mark(rebootedMark)
}

// Rebooted reports whether the host was rebooted to get back.
func (d Dir) Rebooted() (bool, error) { return d.marked(rebootedMark) }

// Close notes that the attempt is over and its outcome kept.
func (d Dir) Close() error { return d.mark(closedMark) }

// Closed reports whether the attempt is over.
func (d Dir) Closed() (bool, error) { return d.marked(closedMark) }

// mark makes a name durable. It is one more name of a file that the plan came with, so
// that a full disk has room for it.
func (d Dir) mark(name string) error {
	err := os.Link(d.proposal(Rollback), filepath.Join(d.path, name))
	if err == nil || errors.Is(err, fs.ErrExist) {
		err = durable.SyncDir(d.path)
	}
	if err != nil {
		return fmt.Errorf("note %s of attempt %d: %w", name, d.number, err)
	}
	return nil
}

func (d Dir) marked(name string) (bool, error) {
	_, err := os.Lstat(filepath.Join(d.path, name))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
