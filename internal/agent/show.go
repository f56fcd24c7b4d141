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

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/activation"
	"github.com/nixfleet/nixfleet/internal/nix"
)

// localStatus is what can be told without the control plane and while the agent runs.
type localStatus struct {
	Host    string        `json:"host"`
	Running nix.StorePath `json:"running,omitempty"`
	Booted  nix.StorePath `json:"booted,omitempty"`
	Profile nix.StorePath `json:"profile,omitempty"`

	// Problems are what could not be read.
	Problems []string `json:"problems,omitempty"`

	Journal Journal `json:"journal"`
}

func readLocalStatus(ctx context.Context, c Config) (localStatus, error) {
	s := localStatus{Host: c.Namespace + "/" + c.HostName}
	note := func(err error) {
		if err != nil {
			s.Problems = append(s.Problems, err.Error())
		}
	}
	data, err := os.ReadFile(NewJournalFile(c.StateDir, time.Now).path())
	switch {
	case errors.Is(err, fs.ErrNotExist):
		note(fmt.Errorf("there is no journal in %s: no agent has run with this configuration", c.StateDir))
	case err != nil:
		return s, fmt.Errorf("read the journal: %w", err)
	default:
		if s.Journal, err = decodeJournal(data); err != nil {
			note(fmt.Errorf("the journal cannot be read; the agent puts it aside when it starts: %w", err))
		}
	}
	activator := &activation.NixOS{Root: c.Root}
	s.Running, _, err = activator.Running()
	note(err)
	s.Booted, err = activator.Booted()
	note(err)
	s.Profile, _, err = nix.NewProfile(c.Root).Current(ctx)
	if !errors.Is(err, nix.ErrNoProfile) {
		note(err)
	}
	return s, nil
}

func printStatus(ctx context.Context, c Config, w io.Writer, output string) error {
	if output != "" && output != "json" {
		return fmt.Errorf("--output %q: only json is known", output)
	}
	s, err := readLocalStatus(ctx, c)
	if err != nil {
		return err
	}
	if output == "json" {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(s)
	}
	return s.print(w)
}

func (s localStatus) print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	line := func(format string, args ...any) {
		_, _ = fmt.Fprintf(t, format+"\n", args...) // Flush tells
	}
	line("Host:\t%s", s.Host)
	line("Running:\t%s", orNone(s.Running))
	line("Booted:\t%s", orNone(s.Booted))
	line("Profile:\t%s", orNone(s.Profile))
	line("Revision:\t%d", s.Journal.ObservedRevision)
	if o := s.Journal.Open; o != nil {
		line("In progress:\trevision %d, %s since %s, to %s", o.Revision, o.Step, o.Since.Format(time.RFC3339), o.StorePath)
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

func orNone(p nix.StorePath) string {
	if p == "" {
		return "none"
	}
	return p.String()
}
