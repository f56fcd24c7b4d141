// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"text/tabwriter"
	"time"

	"sigs.k8s.io/yaml"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/activation"
	"github.com/nixfleet/nixfleet/internal/attempt"
	"github.com/nixfleet/nixfleet/internal/nix"
)

// localStatus is what can be told without the control plane and while the agent runs.
type localStatus struct {
	Host           string        `json:"host"`
	Running        nix.StorePath `json:"running,omitempty"`
	Specialisation string        `json:"specialisation,omitempty"`
	Booted         nix.StorePath `json:"booted,omitempty"`
	Profile        nix.StorePath `json:"profile,omitempty"`
	Generation     int64         `json:"generation,omitempty"`

	// Attempt is the attempt that is open and has a plan.
	Attempt *localAttempt `json:"attempt,omitempty"`

	// Problems are what could not be read.
	Problems []string `json:"problems,omitempty"`

	Journal Journal `json:"journal"`
}

// localAttempt is what the directory of an attempt says.
type localAttempt struct {
	Number     int64              `json:"number"`
	Previous   attempt.System     `json:"previous"`
	Target     attempt.System     `json:"target"`
	Protection attempt.Protection `json:"protection"`
	Decision   attempt.Decision   `json:"decision,omitempty"`
}

// readLocalStatus reads what it can. What it cannot is among the problems.
func readLocalStatus(ctx context.Context, c Config) localStatus {
	s := localStatus{Host: c.Namespace + "/" + c.HostName}
	note := func(err error) {
		if err != nil {
			s.Problems = append(s.Problems, err.Error())
		}
	}
	journal := NewJournalFile(c.StateDir, time.Now)
	_, err := os.Stat(journal.path())
	if errors.Is(err, fs.ErrNotExist) {
		note(fmt.Errorf("there is no journal in %s: no agent has run with this configuration", c.StateDir))
	} else {
		s.Journal, err = journal.Read()
		note(err)
		s.Attempt, err = readLocalAttempt(c.StateDir, s.Journal.Open)
		note(err)
	}
	activator := &activation.NixOS{Root: c.Root}
	s.Running, s.Specialisation, err = activator.Running()
	note(err)
	s.Booted, err = activator.Booted()
	note(err)
	s.Profile, s.Generation, err = nix.NewProfile(c.Root).Current(ctx)
	if !errors.Is(err, nix.ErrNoProfile) {
		note(err)
	}
	return s
}

func readLocalAttempt(stateDir string, o *OpenAttempt) (*localAttempt, error) {
	if o == nil || o.Number == 0 {
		return nil, nil
	}
	d := attempt.At(stateDir, o.Number)
	p, err := d.Plan()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	decision, err := d.Decision()
	return &localAttempt{Number: p.Number, Previous: p.Previous, Target: p.Target, Protection: p.Protection, Decision: decision}, err
}

// printStatus prints what there is, even of a host whose configuration cannot be read; the
// error says that it cannot.
func printStatus(ctx context.Context, c Config, configErr error, w io.Writer, output string) error {
	s := readLocalStatus(ctx, c)
	var err error
	switch output {
	case "":
		err = s.print(w)
	case "json":
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		err = enc.Encode(s)
	case "yaml":
		var data []byte
		if data, err = yaml.Marshal(s); err == nil {
			_, err = w.Write(data)
		}
	default:
		return fmt.Errorf("--output %q: it can be json or yaml; without it the answer is for people", output)
	}
	return errors.Join(err, configErr)
}

func (s localStatus) print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	line := func(format string, args ...any) {
		_, _ = fmt.Fprintf(t, format+"\n", args...) // Flush tells
	}
	line("Host:\t%s", s.Host)
	line("Running:\t%s", orNone(attempt.System{Path: s.Running, Specialisation: s.Specialisation}.String()))
	line("Booted:\t%s", orNone(s.Booted.String()))
	generation := ""
	if s.Generation > 0 {
		generation = fmt.Sprintf(" (generation %d)", s.Generation)
	}
	line("Profile:\t%s%s", orNone(s.Profile.String()), generation)
	line("Revision:\t%d", s.Journal.ObservedRevision)
	if o := s.Journal.Open; o != nil {
		line("In progress:\trevision %d, %s since %s, to %s", o.Revision, o.Step, o.Since.Format(time.RFC3339), o.StorePath)
	}
	if a := s.Attempt; a != nil {
		line("Goes back to:\t%s, by: nixfleet-agent rollback --attempt %d", orNone(a.Previous.String()), a.Number)
		if a.Decision != attempt.Undecided {
			line("Decided:\t%s", a.Decision)
		}
		if a.Protection != attempt.ProtectionTimers {
			line("Problem:\tno dead man's switch protects this attempt: if the agent is gone, nobody goes back")
		}
	}
	for _, p := range s.Problems {
		line("Problem:\t%s", p)
	}
	if len(s.Journal.History) > 0 {
		line("\nREVISION\tOUTCOME\tREASON\tFINISHED\tSYSTEM")
	}
	for _, a := range s.Journal.History {
		line("%d\t%s\t%s\t%s\t%s", a.Revision, a.Outcome, a.Reason, a.FinishedAt.Format(time.RFC3339), nix.StorePath(a.StorePath).Base())
	}
	if last := s.Journal.Last; last != nil && last.Outcome != nfv1.AttemptSucceeded {
		line("\nThe last attempt: %s", last.Message)
	}
	return t.Flush()
}

func orNone(path string) string {
	if path == "" {
		return "none"
	}
	return path
}
