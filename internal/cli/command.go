// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package cli

import (
	"io"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/utils/clock"
)

// Streams are what the command line reads and writes, and the clock that ages are
// counted by.
type Streams struct {
	genericiooptions.IOStreams

	// Clock is the clock; clock.RealClock{} outside of tests.
	Clock clock.WithTicker
	// NoColor switches colors off, as the variable NO_COLOR asks.
	NoColor bool
}

const long = `Shows a fleet of NixOS machines and the rollouts that move it.

Everything is read from the Kubernetes API, with the rights of your kubeconfig.

Exit codes: 0 done, 1 failed or refused, 2 wrong usage, 3 stopped waiting,
4 the rollout paused or needs approval.`

const examples = `  # The whole fleet, and what is not up to date
  kubectl nixfleet status

  # Everything about one host, and why it is not up to date
  kubectl nixfleet status web-01

  # Follow a rollout until it ends, in a script
  kubectl nixfleet rollout status 2026-11-23 --wait --wait-timeout 30m`

// New returns the root command.
func New(streams Streams) *cobra.Command {
	config := genericclioptions.NewConfigFlags(true)
	cmd := &cobra.Command{
		Use:           "kubectl-nixfleet",
		Short:         "Look at a fleet of NixOS machines",
		Long:          long,
		Example:       examples,
		Args:          noArgs,
		SilenceErrors: true,
		SilenceUsage:  true,
		Annotations:   map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl nixfleet"},
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.SetIn(streams.In)
	cmd.SetOut(streams.Out)
	cmd.SetErr(streams.ErrOut)
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usagef("%w", err) })
	config.AddFlags(cmd.PersistentFlags())
	f := &factory{config: config, streams: streams}
	cmd.AddCommand(newStatus(f), newRollout(f), newVersion(f))
	return cmd
}

func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if cmd.HasAvailableSubCommands() {
		return usagef("unknown command %q for %q", args[0], cmd.CommandPath())
	}
	return usagef("%s takes no arguments, and there is %q", cmd.CommandPath(), args[0])
}

func exactlyOne(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == 1 {
			return nil
		}
		return usagef("%s takes exactly one %s, and there are %d", cmd.CommandPath(), what, len(args))
	}
}

// write writes a text and reports what went wrong, such as a full disk or a pager that
// was closed.
func write(w io.Writer, text string) error {
	_, err := io.WriteString(w, text)
	return err
}
