// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/durable"
	"github.com/nixfleet/nixfleet/internal/health"
	"github.com/nixfleet/nixfleet/internal/nix"
)

const (
	journalName = "journal.json"
	maxHistory  = 10
	maxJournal  = 1 << 20
)

// Journal is what the agent remembers. It is written before each step is taken.
// Unknown fields are ignored, so that an older agent can read what a newer one wrote.
type Journal struct {
	// HostUID is the Host object that revisions count for.
	HostUID types.UID `json:"hostUID,omitempty"`

	// ObservedRevision is the highest revision of spec.desired that was taken up.
	ObservedRevision int64 `json:"observedRevision,omitempty"`

	// Attempts is the highest number that an attempt on this host has had.
	Attempts int64 `json:"attempts,omitempty"`

	// Open is the attempt in progress.
	Open *OpenAttempt `json:"open,omitempty"`

	// Last is the last attempt that ended.
	Last *nfv1.HostAttempt `json:"last,omitempty"`

	// History are the last attempts that ended, newest first.
	History []nfv1.HostAttempt `json:"history,omitempty"`

	// Good is the system of the last attempt that succeeded.
	Good nix.StorePath `json:"good,omitempty"`

	// Units is which units were not well when Good was committed; nil if nobody looked.
	// One that fails later was not expected to.
	Units *health.Baseline `json:"units,omitempty"`

	// Uncorrected is the drift that could not be corrected.
	Uncorrected *Uncorrected `json:"uncorrected,omitempty"`

	// Host is what is needed of the Host object that was acted on last, so that an
	// attempt can be brought to its end without the control plane.
	Host *nfv1.Host `json:"host,omitempty"`
}

// remembered is the part of a Host that the journal keeps.
func remembered(h *nfv1.Host) *nfv1.Host {
	return &nfv1.Host{
		ObjectMeta: metav1.ObjectMeta{Namespace: h.Namespace, Name: h.Name, UID: h.UID, Generation: h.Generation},
		Spec: nfv1.HostSpec{
			Platform: h.Spec.Platform, Lifecycle: h.Spec.Lifecycle, Activation: h.Spec.Activation,
			HealthChecks: h.Spec.HealthChecks, Desired: h.Spec.Desired.DeepCopy(),
		},
	}
}

// OpenAttempt is an attempt in progress and what is needed to undo it.
type OpenAttempt struct {
	nfv1.HostAttempt

	// Number and Nonce name the plan of the attempt, which lies in a directory of its
	// own. 0 and empty before there is one.
	Number int64  `json:"attempt,omitempty"`
	Nonce  string `json:"nonce,omitempty"`

	// Step is the step that is being taken.
	Step nfv1.HostPhase `json:"step"`

	// Since is when the step began.
	Since time.Time `json:"since"`

	// Previous is what ran before the attempt; empty if nothing did.
	Previous nix.StorePath `json:"previous,omitempty"`

	// PreviousSpecialisation is the specialisation of it that ran.
	PreviousSpecialisation string `json:"previousSpecialisation,omitempty"`

	// PreviousProfile is the profile as it was before the attempt.
	PreviousProfile nix.ProfileState `json:"previousProfile"`

	// BootID is the boot of the machine in which the activation began.
	BootID string `json:"bootID,omitempty"`

	// Timeout is how long an activation may take.
	Timeout time.Duration `json:"timeout"`

	// Reachable says that the control plane could be reached before the activation.
	Reachable bool `json:"reachable,omitempty"`

	// ProfileTouched says that the profile and the boot default may have been changed.
	ProfileTouched bool `json:"profileTouched,omitempty"`

	// Interruptions counts the ends of the agent in mid-attempt.
	Interruptions int `json:"interruptions,omitempty"`

	// Correction says that no order asked for the attempt: somebody had activated another
	// system by hand.
	Correction bool `json:"correction,omitempty"`

	// Again says that the attempt is to begin again once the host is back on Previous.
	Again bool `json:"again,omitempty"`
}

// JournalFile keeps the journal in a directory.
type JournalFile struct {
	dir string
	now func() time.Time
}

// NewJournalFile returns the journal of a state directory.
func NewJournalFile(dir string, now func() time.Time) *JournalFile {
	return &JournalFile{dir: dir, now: now}
}

func (f *JournalFile) path() string { return filepath.Join(f.dir, journalName) }

// CorruptJournalError says that a journal could not be read and was put aside.
type CorruptJournalError struct {
	// Kept is where it lies now.
	Kept string

	// Err says what is wrong with it.
	Err error
}

// Error says what happened and where the file is.
func (e *CorruptJournalError) Error() string {
	return fmt.Sprintf("the journal could not be read and was put aside as %s: %v", e.Kept, e.Err)
}

// Unwrap gives access to what is wrong with the journal.
func (e *CorruptJournalError) Unwrap() error { return e.Err }

// Load reads the journal. One that does not exist is empty. One that cannot be read is
// put aside and answered as empty, with a *CorruptJournalError.
func (f *JournalFile) Load() (Journal, error) {
	j, err := f.Read()
	var bad *journalError
	if !errors.As(err, &bad) {
		return j, err
	}
	kept := fmt.Sprintf("%s.corrupt-%d", f.path(), f.now().Unix())
	if rerr := os.Rename(f.path(), kept); rerr != nil {
		return Journal{}, fmt.Errorf("put the unreadable journal aside: %w", errors.Join(err, rerr))
	}
	return Journal{}, &CorruptJournalError{Kept: kept, Err: bad.err}
}

// journalError says what is wrong with what a journal says.
type journalError struct{ err error }

// Error says so.
func (e *journalError) Error() string {
	return "the journal cannot be read; the agent puts it aside when it starts: " + e.err.Error()
}

// Unwrap gives access to what is wrong.
func (e *journalError) Unwrap() error { return e.err }

// Read is Load for somebody who looks only: a journal that cannot be read is left where it
// is.
func (f *JournalFile) Read() (Journal, error) {
	data, err := os.ReadFile(f.path())
	if errors.Is(err, fs.ErrNotExist) {
		return Journal{}, nil
	}
	if err != nil {
		return Journal{}, fmt.Errorf("read the journal: %w", err)
	}
	j, err := decodeJournal(data)
	if err != nil {
		return Journal{}, &journalError{err}
	}
	return j, nil
}

func decodeJournal(data []byte) (Journal, error) {
	var j Journal
	if len(data) > maxJournal {
		return j, fmt.Errorf("it has %d bytes, more than %d", len(data), maxJournal)
	}
	if err := json.Unmarshal(data, &j); err != nil {
		return Journal{}, err
	}
	if o := j.Open; o != nil {
		asked := string(o.StorePath)
		if o.Step == nfv1.HostPhaseFetching {
			asked = "" // it may be anything: the fetch refuses it
		}
		for _, p := range []string{asked, string(o.Previous), string(o.PreviousProfile.Path)} {
			if _, err := nix.ParseStorePath(p); p != "" && err != nil {
				return Journal{}, err
			}
		}
	}
	return j, nil
}

// Save replaces the journal, so that after a loss of power either the old one or the
// new one is there, whole.
func (f *JournalFile) Save(j Journal) error {
	data, err := json.MarshalIndent(j, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the journal: %w", err)
	}
	if err := durable.WriteFile(f.dir, journalName, data); err != nil {
		return fmt.Errorf("write the journal: %w", err)
	}
	return nil
}

// end closes the open attempt with an outcome.
func (j *Journal) end(outcome nfv1.AttemptOutcome, reason, message string, at time.Time) {
	if j.Open.Correction {
		j.endCorrection(outcome, reason, message)
		return
	}
	j.Uncorrected = nil
	a := j.Open.HostAttempt
	a.Phases = append(a.Phases, phaseDuration(j.Open, at))
	a.Outcome, a.Reason, a.Message, a.FinishedAt = outcome, reason, shorten(message, 512), stamp(at)
	if outcome == nfv1.AttemptSucceeded {
		j.Good = nix.StorePath(a.StorePath)
	}
	j.Open, j.Last = nil, &a
	j.History = append([]nfv1.HostAttempt{a}, j.History...)
	if len(j.History) > maxHistory {
		j.History = j.History[:maxHistory]
	}
}

// step moves the open attempt to its next step.
func (j *Journal) step(to nfv1.HostPhase, at time.Time) {
	j.Open.Phases = append(j.Open.Phases, phaseDuration(j.Open, at))
	if len(j.Open.Phases) > 7 { // the API has room for 8
		j.Open.Phases = j.Open.Phases[len(j.Open.Phases)-7:]
	}
	j.Open.Step, j.Open.Since = to, at
}

func phaseDuration(o *OpenAttempt, at time.Time) nfv1.PhaseDuration {
	return nfv1.PhaseDuration{Phase: o.Step, Seconds: int64((max(at.Sub(o.Since), 0) + time.Second - 1) / time.Second)}
}
