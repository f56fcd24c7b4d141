// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/cli/view"
)

const rolloutStatusLong = `Shows how far a rollout is: its phase and why it is in it, its waves, and the hosts
that failed.

With --watch it goes on until the rollout has ended; with --wait until it has ended or
needs a person. On a terminal the same text is drawn anew; elsewhere there is one line
for each change.

Exit codes with --wait: 0 the rollout succeeded, 1 it failed, was reverted, cancelled
or deleted, 3 --wait-timeout was over or the wait was interrupted, 4 it is paused or
needs approval.`

const rolloutStatusExamples = `  # Once
  kubectl nixfleet rollout status 2026-11-23

  # In CI
  kubectl nixfleet rollout status 2026-11-23 --wait --wait-timeout 1h`

func newRollout(f *factory) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rollout",
		Short: "Look at rollouts",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newRolloutStatus(f), newRolloutPlan(f), newRolloutWhy(f))
	return cmd
}

// rolloutOptions are the flags and the argument of rollout status.
type rolloutOptions struct {
	*factory

	name    string
	watch   bool
	wait    bool
	timeout time.Duration
}

func newRolloutStatus(f *factory) *cobra.Command {
	o := &rolloutOptions{factory: f}
	cmd := &cobra.Command{
		Use:     "status NAME",
		Short:   "Show how far a rollout is, or wait for its end",
		Long:    rolloutStatusLong,
		Example: rolloutStatusExamples,
		Args:    exactlyOne("name of a rollout"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.name = args[0]
			if err := o.validate(cmd); err != nil {
				return err
			}
			return o.run(cmd.Context())
		},
		ValidArgsFunction: completeRollouts(f),
	}
	flags := cmd.Flags()
	flags.BoolVarP(&o.watch, "watch", "w", false, "Follow the rollout until it has ended")
	flags.BoolVar(&o.wait, "wait", false, "Wait until the rollout has ended or needs a person, and exit with the result")
	flags.DurationVar(&o.timeout, "wait-timeout", 0, "With --wait: stop waiting after so long, such as 30m; 0 for never")
	return cmd
}

func (o *rolloutOptions) validate(cmd *cobra.Command) error {
	switch {
	case o.watch && o.wait:
		return usagef("--watch and --wait cannot be combined: --wait follows the rollout too, and stops when it needs a person")
	case cmd.Flags().Changed("wait-timeout") && !o.wait:
		return usagef("--wait-timeout needs --wait")
	case o.timeout < 0:
		return usagef("--wait-timeout %s is negative", o.timeout)
	}
	return nil
}

func (o *rolloutOptions) run(ctx context.Context) error {
	a, err := o.api()
	if err != nil {
		return err
	}
	only := a.rollouts(scope{namespace: a.namespace, name: o.name})
	found, err := list[*nfv1.RolloutList](ctx, only)
	if err != nil {
		return err
	}
	if len(found.Items) == 0 {
		return fmt.Errorf("there is no Rollout %q in namespace %q (kubectl get rollouts.nixfleet.io -A shows all)", o.name, a.namespace)
	}
	out := newScreen(o.streams.Out)
	if !o.watch && !o.wait {
		return write(o.streams.Out, view.Rollout(&found.Items[0], o.view(out.width())))
	}
	return o.follow(ctx, only, found.Items[0].UID, out)
}

func (o *rolloutOptions) view(width int) view.Options {
	return view.Options{Now: o.streams.Clock.Now(), Width: width, Color: width > 0 && !o.streams.NoColor}
}
