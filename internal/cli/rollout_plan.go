// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/types"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/cli/view"
	"github.com/nixfleet/nixfleet/internal/rollout"
	"github.com/nixfleet/nixfleet/internal/rollout/preview"
)

const rolloutPlanLong = `Shows what a rollout would do: which hosts in which waves, in which order, what stands
in the way, and where it ends. The planner is the one of the controller, played ahead
with hosts that succeed at once. Nothing is changed.

The argument is the name of a Rollout, or a file with one (a path with a slash or with
the ending .yaml, .yml or .json; "-" is standard input), and with the Release that it
names if that is not there yet. The API server checks the file as if it were applied.

Which hosts a wave takes is drawn when a Rollout is created, so for a file the plan
names the hosts that a wave is drawn from.`

const rolloutPlanExamples = `  # What would this do?
  kubectl nixfleet rollout plan rollout.yaml

  # What is still to come?
  kubectl nixfleet rollout plan 2026-11-23

  # The hosts of the first wave, for a program
  kubectl nixfleet rollout plan 2026-11-23 -o json | jq -r '.waves[0].batches[][]'`

// defaultOfflineAfter is the default of the manager's flag --host-offline-after.
const defaultOfflineAfter = 180 * time.Second

// planOptions are the flags of the commands that plan.
type planOptions struct {
	*factory

	output       outputFlag
	offlineAfter time.Duration
}

func (o *planOptions) addFlags(cmd *cobra.Command) {
	o.output.add(cmd)
	cmd.Flags().DurationVar(&o.offlineAfter, "host-offline-after", defaultOfflineAfter,
		"How long a host may be silent before it is offline: the value of the manager's flag of this name")
}

func (o *planOptions) validate() error {
	if o.offlineAfter <= 0 {
		return usagef("--host-offline-after %s is not positive", o.offlineAfter)
	}
	return o.output.validate()
}

func (o *planOptions) view(width int) view.Options {
	return view.Options{Now: o.streams.Clock.Now(), Width: width, Color: width > 0 && !o.streams.NoColor, Wide: o.output.wide()}
}

func newRolloutPlan(f *factory) *cobra.Command {
	o := &planOptions{factory: f}
	cmd := &cobra.Command{
		Use:     "plan FILE|NAME",
		Short:   "Show what a rollout would do, and in which order",
		Long:    rolloutPlanLong,
		Example: rolloutPlanExamples,
		Args:    exactlyOne("file or name of a rollout"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.validate(); err != nil {
				return err
			}
			return o.plan(cmd.Context(), args[0])
		},
		ValidArgsFunction: completeFilesAndRollouts(f),
	}
	o.addFlags(cmd)
	return cmd
}

func (o *planOptions) plan(ctx context.Context, arg string) error {
	a, err := o.api()
	if err != nil {
		return err
	}
	var s rollout.Snapshot
	order := preview.OrderKnown
	if isFile(arg) {
		s, order, err = o.fromFile(ctx, a, arg)
	} else {
		s, err = o.byName(ctx, a, arg)
	}
	if err != nil {
		return err
	}
	forecast := preview.Play(s, o.streams.Clock.Now(), order)
	if !o.output.asText() {
		return o.output.encode(o.streams.Out, forecast)
	}
	return write(o.streams.Out, view.Forecast(&forecast, o.view(newScreen(o.streams.Out).width())))
}

func (o *planOptions) byName(ctx context.Context, a *api, name string) (rollout.Snapshot, error) {
	s, err := a.snapshot(ctx, a.namespace, o.offlineAfter)
	if err != nil {
		return s, err
	}
	ro := stored(s, name)
	if ro == nil {
		return s, fmt.Errorf("there is no Rollout %q in namespace %q (kubectl get rollouts.nixfleet.io -A shows all; a file needs a slash or the ending .yaml)",
			name, a.namespace)
	}
	return choose(s, ro), nil
}

// fromFile puts what the file asks for into the namespace as it is.
func (o *planOptions) fromFile(ctx context.Context, a *api, file string) (rollout.Snapshot, preview.Order, error) {
	m, err := o.readManifest(ctx, a, file)
	if err != nil {
		return rollout.Snapshot{}, "", err
	}
	s, err := a.snapshot(ctx, m.rollout.Namespace, o.offlineAfter)
	if err != nil {
		return s, "", err
	}
	for _, rel := range m.releases {
		replaceRelease(s.Releases, rel)
	}
	order := preview.OrderDrawn
	if ro := stored(s, m.rollout.Name); ro != nil && ro.UID == m.rollout.UID {
		order = preview.OrderKnown
	}
	return choose(s, m.rollout), order, nil
}

func replaceRelease(all map[types.UID]*nfv1.Release, rel *nfv1.Release) {
	for uid, other := range all {
		if other.Name == rel.Name {
			delete(all, uid)
		}
	}
	all[rel.UID] = rel
}
