// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/nixfleet/nixfleet/internal/identity"
	"github.com/nixfleet/nixfleet/internal/version"
)

// NewCommand returns the command line of the agent.
func NewCommand() *cobra.Command {
	var path string
	root := &cobra.Command{
		Use:           "nixfleet-agent",
		Short:         "Move this host to the systems that its fleet asks for",
		Version:       version.String(),
		SilenceUsage:  true,
		SilenceErrors: true,
		Example: "  nixfleet-agent check --config /etc/nixfleet/agent.yaml\n" +
			"  nixfleet-agent identity\n  nixfleet-agent run",
	}
	root.PersistentFlags().StringVar(&path, "config", "/etc/nixfleet/agent.yaml", "configuration file")
	with := func(f func(context.Context, Config, io.Writer) error) func(*cobra.Command, []string) error {
		return func(cmd *cobra.Command, _ []string) error {
			c, err := ReadConfig(path)
			if err != nil {
				return err
			}
			return f(cmd.Context(), c, cmd.OutOrStdout())
		}
	}
	root.AddCommand(
		&cobra.Command{Use: "run", Short: "Run the agent until it is stopped", Args: cobra.NoArgs, RunE: with(func(ctx context.Context, c Config, _ io.Writer) error { return Run(ctx, c, os.Stderr) })},
		&cobra.Command{Use: "identity", Short: "Print the public key for spec.identity.publicKeys of the Host", Args: cobra.NoArgs, RunE: with(printIdentity)},
		&cobra.Command{Use: "status", Short: "Print what the agent remembers, as JSON", Args: cobra.NoArgs, RunE: with(printStatus)},
		&cobra.Command{Use: "check", Short: "Check the configuration, the key and the way to the gateway", Args: cobra.NoArgs, RunE: with(check)},
	)
	return root
}

func printIdentity(_ context.Context, c Config, w io.Writer) error {
	if err := os.MkdirAll(c.StateDir, 0o700); err != nil {
		return err
	}
	key, err := identity.LoadOrCreateKey(c.IdentityKeyFile)
	if err != nil {
		return err
	}
	line, err := identity.AuthorizedKey(key)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(w, line)
	return err
}

func printStatus(_ context.Context, c Config, w io.Writer) error {
	data, err := os.ReadFile(NewJournalFile(c.StateDir, nil).path())
	if err != nil {
		return fmt.Errorf("read the journal: %w", err)
	}
	j, err := decodeJournal(data)
	if err != nil {
		return fmt.Errorf("the journal cannot be read: %w", err)
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(j)
}

// check tries what the agent needs and prints a line for each.
func check(ctx context.Context, c Config, w io.Writer) error {
	failed := false
	line := func(what string, err error) {
		result := "ok"
		if err != nil {
			failed, result = true, "failed: "+err.Error()
		}
		_, _ = fmt.Fprintf(w, "%-14s %s\n", what, result)
	}
	line("configuration", nil)
	client, err := newGatewayClient(c)
	line("identity", err)
	if err == nil {
		line("gateway", client.Ping(ctx))
	}
	if failed {
		return errors.New("the agent would not work")
	}
	return nil
}
