// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"k8s.io/utils/clock"

	"github.com/nixfleet/nixfleet/internal/activation"
	"github.com/nixfleet/nixfleet/internal/attempt"
	"github.com/nixfleet/nixfleet/internal/deadman"
)

const defaultStateDir = "/var/lib/nixfleet"

// attemptFlags name an attempt. The commands that take them read nothing but its
// directory: no configuration, which may be a newer agent's, and no key.
type attemptFlags struct {
	number   int64
	stateDir string
	trigger  string
}

func (f *attemptFlags) add(cmd *cobra.Command) {
	// The configuration's flag of the same name would be taken for it.
	cmd.Flags().StringVar(&f.stateDir, "state-dir", defaultStateDir, "where the agent keeps its state")
	cmd.Flags().Int64Var(&f.number, "attempt", 0, "number of the attempt")
	_ = cmd.MarkFlagRequired("attempt") // the flag is there
}

func (f *attemptFlags) dir() (attempt.Dir, error) {
	if f.number <= 0 || !filepath.IsAbs(f.stateDir) {
		return attempt.Dir{}, fmt.Errorf("--attempt has to be positive and --state-dir absolute, not %d and %q", f.number, f.stateDir)
	}
	return attempt.At(f.stateDir, f.number), nil
}

// newActivateCommand is what the agent runs in a unit of its own.
func newActivateCommand() *cobra.Command {
	var f attemptFlags
	cmd := &cobra.Command{
		Use: "activate", Short: "Activate what the plan of an attempt says; run by the agent", Args: cobra.NoArgs, Hidden: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			d, err := f.dir()
			if err != nil {
				return err
			}
			return activatePlan(cmd.Context(), d)
		},
	}
	f.add(cmd)
	return cmd
}

func activatePlan(ctx context.Context, d attempt.Dir) error {
	p, err := d.Plan()
	if err != nil {
		return err
	}
	_, err = newHelper(p).Run(ctx, d)
	return err
}

// newRollbackCommand is what the dead man's timers run, and a person may.
func newRollbackCommand() *cobra.Command {
	var f attemptFlags
	cmd := &cobra.Command{
		Use: "rollback", Args: cobra.NoArgs,
		Short: "Go back to what ran before an attempt that is not over",
		Long: "Go back to what ran before an attempt that is not over.\n\nIt reads the plan of the attempt and nothing else, so that it works without a network, " +
			"an agent and a configuration. It does nothing if the attempt was committed, and may reboot the machine if that is the only way back.",
		Example: "  nixfleet-agent rollback --attempt 8",
		RunE: func(cmd *cobra.Command, _ []string) error {
			d, err := f.dir()
			if err != nil {
				return err
			}
			return rollBackPlan(cmd.Context(), d, f.trigger, cmd.ErrOrStderr())
		},
	}
	f.add(cmd)
	cmd.Flags().StringVar(&f.trigger, "trigger", activation.TriggerPerson, "who goes back")
	_ = cmd.Flags().MarkHidden("trigger") // the flag is there
	return cmd
}

func rollBackPlan(ctx context.Context, d attempt.Dir, trigger string, w io.Writer) error {
	p, err := d.Plan()
	if err != nil {
		return err
	}
	file, err := openRollbackLog(p)
	if err == nil {
		defer file.Close() //nolint:errcheck // what it says is a courtesy
		w = io.MultiWriter(w, file)
	}
	log := slog.New(slog.NewTextHandler(w, nil))
	ladder := &deadman.Ladder{Host: deadman.NewMachine(p), Trigger: trigger, BootID: bootID(), Clock: clock.RealClock{}, Log: log}
	record, err := ladder.Climb(ctx, d)
	switch {
	case trigger != activation.TriggerPerson && (errors.Is(err, deadman.ErrCommitted) || errors.Is(err, deadman.ErrClosed)):
		log.Info("Nothing to do", "attempt", p.Number, "reason", err)
		return nil
	case err != nil:
		log.Error("Go back", "attempt", p.Number, "error", err)
		return err
	case record.Outcome == attempt.RollbackFailed:
		return fmt.Errorf("the host did not get back to %s: %v", p.Previous, record.Problems)
	default:
		return nil
	}
}

// openRollbackLog opens the log of a roll-back. One that cannot be written must not keep
// it from working.
func openRollbackLog(p attempt.Plan) (*os.File, error) {
	dir := filepath.Join(p.StateDir, "logs")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return os.OpenFile(filepath.Join(dir, "deadman-"+p.ID()+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
}
