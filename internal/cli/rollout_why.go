// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	coordinationv1 "k8s.io/api/coordination/v1"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/cli/view"
	"github.com/nixfleet/nixfleet/internal/rollout"
	"github.com/nixfleet/nixfleet/internal/rollout/preview"
)

const rolloutWhyLong = `Shows where a rollout stands with a host: whether the host is one of its targets, what
holds it, with the numbers, and where it comes in the order.`

const rolloutWhyExamples = `  # Why does nothing happen on this host?
  kubectl nixfleet rollout why 2026-11-23 web-01`

func newRolloutWhy(f *factory) *cobra.Command {
	o := &planOptions{factory: f}
	cmd := &cobra.Command{
		Use:     "why NAME HOST",
		Short:   "Show what holds a host of a rollout",
		Long:    rolloutWhyLong,
		Example: rolloutWhyExamples,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 2 {
				return usagef("%s takes the name of a rollout and that of a host, and there are %d arguments", cmd.CommandPath(), len(args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.validate(); err != nil {
				return err
			}
			return o.why(cmd.Context(), args[0], args[1])
		},
		ValidArgsFunction: completeRolloutThenHost(f),
	}
	o.addFlags(cmd)
	return cmd
}

func (o *planOptions) why(ctx context.Context, name, host string) error {
	a, err := o.api()
	if err != nil {
		return err
	}
	s, err := o.byName(ctx, a, name)
	if err != nil {
		return err
	}
	answer, err := preview.Why(s, o.streams.Clock.Now(), host)
	if err != nil {
		return fmt.Errorf("%w (kubectl get hosts -A shows all)", err)
	}
	if !o.output.asText() {
		return o.output.encode(o.streams.Out, answer)
	}
	m, err := o.member(ctx, a, s, host)
	if err != nil {
		return err
	}
	return write(o.streams.Out, view.Answer(&answer, m, o.view(newScreen(o.streams.Out).width())))
}

// member is a host of a snapshot and when it was heard of.
func (o *planOptions) member(ctx context.Context, a *api, s rollout.Snapshot, host string) (view.Member, error) {
	leases, err := list[*coordinationv1.LeaseList](ctx, a.leasesOf(scope{namespace: a.namespace}))
	if err != nil {
		return view.Member{}, err
	}
	var m view.Member
	for _, h := range s.Hosts {
		if h.Name == host {
			m.Host = h
		}
	}
	for i := range leases.Items {
		if leases.Items[i].Name == nfv1.LeaseName(host) {
			m.LastSeen = view.LastSeen(&leases.Items[i])
		}
	}
	return m, nil
}
