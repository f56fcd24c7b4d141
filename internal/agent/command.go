// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package agent

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/nixfleet/nixfleet/internal/attempt"
	"github.com/nixfleet/nixfleet/internal/identity"
	"github.com/nixfleet/nixfleet/internal/version"
)

// defaultConfigFile is where a NixOS module puts the configuration.
const defaultConfigFile = "/etc/nixfleet/agent.yaml"

// NewCommand returns the command line of the agent.
func NewCommand() *cobra.Command {
	var path, output string
	root := &cobra.Command{
		Use:           "nixfleet-agent",
		Short:         "Move this host to the systems that its fleet asks for",
		Version:       version.String(),
		SilenceUsage:  true,
		SilenceErrors: true,
		Example: "  nixfleet-agent check --config /etc/nixfleet/agent.yaml\n" +
			"  nixfleet-agent identity\n  nixfleet-agent run",
	}
	root.PersistentFlags().StringVar(&path, "config", defaultConfigFile, "configuration file; empty: the flags are the whole configuration")
	flags := newConfigFlags(root.PersistentFlags())
	with := func(f func(context.Context, Config, io.Writer) error) func(*cobra.Command, []string) error {
		return func(cmd *cobra.Command, _ []string) error {
			c, err := readConfig(path, flags)
			if err != nil {
				return err
			}
			return f(cmd.Context(), c, cmd.OutOrStdout())
		}
	}
	run := func(ctx context.Context, c Config, _ io.Writer) error {
		self, err := attempt.ThisAgent(path)
		if err != nil {
			return err
		}
		return Run(ctx, c, self, os.Stderr)
	}
	status := &cobra.Command{
		Use: "status", Short: "Print what runs on this host and what the agent did", Args: cobra.NoArgs,
		RunE: with(func(ctx context.Context, c Config, w io.Writer) error { return printStatus(ctx, c, w, output) }),
	}
	status.Flags().StringVarP(&output, "output", "o", "", `"json" prints the journal and what runs, for programs`)
	root.AddCommand(
		&cobra.Command{Use: "run", Short: "Run the agent until it is stopped", Args: cobra.NoArgs, RunE: with(run)},
		&cobra.Command{
			Use: "identity", Short: "Print the public key for spec.identity.publicKeys of the Host; makes the key if there is none",
			Args: cobra.NoArgs, RunE: with(printIdentity),
		},
		status,
		newRollbackCommand(),
		newActivateCommand(),
		&cobra.Command{
			Use: "check", Short: "Check the configuration, the key and the way to the gateway", Args: cobra.NoArgs,
			// What is wrong with the configuration is a line of the answer, too.
			RunE: func(cmd *cobra.Command, _ []string) error {
				c, err := readConfig(path, flags)
				return check(cmd.Context(), c, err, cmd.OutOrStdout())
			},
		},
	)
	return root
}

func printIdentity(_ context.Context, c Config, w io.Writer) error {
	if err := os.MkdirAll(c.StateDir, 0o700); err != nil {
		return fmt.Errorf("make the state directory: %w", err)
	}
	key, err := identity.LoadOrCreateKey(c.IdentityKeyFile)
	if err != nil {
		return err
	}
	pin, err := identity.PinOf(key.Public())
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "%s %s\n# fingerprint %s\n", pin, c.HostName, pin.Fingerprint())
	return err
}
