// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package agent

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/nixfleet/nixfleet/internal/attempt"
	"github.com/nixfleet/nixfleet/internal/version"
)

// defaultConfigFile is where a NixOS module puts the configuration.
const defaultConfigFile = "/etc/nixfleet/agent.yaml"

// commandLine is what all commands share.
type commandLine struct {
	path  string
	flags *configFlags
}

// NewCommand returns the command line of the agent.
func NewCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "nixfleet-agent",
		Short: "Move this host to the systems that its fleet asks for",
		Long: "Move this host to the systems that its fleet asks for.\n\nEvery key of the configuration file has a flag, which wins over it. " +
			"rollback alone needs no configuration.",
		Version:       version.String(),
		SilenceUsage:  true,
		SilenceErrors: true,
		Example: "  nixfleet-agent check --config /etc/nixfleet/agent.yaml\n" +
			"  nixfleet-agent identity\n  nixfleet-agent run\n  nixfleet-agent status",
	}
	c := &commandLine{}
	root.PersistentFlags().StringVar(&c.path, "config", defaultConfigFile, "configuration file; empty: the flags are the whole configuration")
	c.flags = newConfigFlags(root.PersistentFlags())
	root.AddCommand(c.run(), c.status(), c.identity(), c.check(), newRollbackCommand(), newActivateCommand())
	return root
}

func (l *commandLine) run() *cobra.Command {
	return &cobra.Command{
		Use: "run", Short: "Run the agent until it is stopped", Args: cobra.NoArgs,
		Example: "  nixfleet-agent run\n  nixfleet-agent run --dry-run --log-level debug",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := readConfig(l.path, l.flags)
			var unknown *UnknownKeysError
			if err != nil && (!errors.As(err, &unknown) || c.StateDir == "") {
				return err
			}
			self, serr := attempt.ThisAgent(l.path)
			if serr != nil {
				return serr
			}
			return Run(cmd.Context(), c, RunOptions{Self: self, Unfit: err, Log: cmd.ErrOrStderr()})
		},
	}
}

func (l *commandLine) status() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "status", Short: "Print what runs on this host and what the agent did", Args: cobra.NoArgs,
		Long: "Print what runs on this host, what was booted, what the profile names, and what the agent did.\n\n" +
			"It reads the agent's journal, so it needs no network, and no root where that can be read.",
		Example: "  nixfleet-agent status\n  nixfleet-agent status -o json | jq .journal.last",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := readConfig(l.path, l.flags)
			if err != nil && c.StateDir == "" {
				// What there is to see does not depend on the rest of it.
				c = Config{}
				l.flags.override(&c)
				if cerr := c.complete(); cerr != nil {
					return errors.Join(err, cerr)
				}
			}
			return printStatus(cmd.Context(), c, err, cmd.OutOrStdout(), output)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "json or yaml: the journal and what runs, for programs")
	return cmd
}

func (l *commandLine) identity() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "identity", Short: "Print the public key for spec.identity.publicKeys of the Host; makes the key if there is none", Args: cobra.NoArgs,
		Example: "  nixfleet-agent identity\n  nixfleet-agent identity -o yaml | kubectl apply --server-side -f -",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := readConfig(l.path, l.flags)
			if err != nil {
				return err
			}
			return printIdentity(c, cmd.OutOrStdout(), output)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "yaml: a Host with the key")
	return cmd
}

func (l *commandLine) check() *cobra.Command {
	return &cobra.Command{
		Use: "check", Short: "Check whether the agent could work on this host, and the host's health", Args: cobra.NoArgs,
		Long: "Check whether the agent could work on this host, and run the health checks of the running system.\n\n" +
			"Each line is ok, or says what is wrong and what to do. It changes nothing.",
		Example: "  nixfleet-agent check",
		// What is wrong with the configuration is a line of the answer, too.
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := readConfig(l.path, l.flags)
			return check(cmd.Context(), c, err, cmd.OutOrStdout())
		},
	}
}
