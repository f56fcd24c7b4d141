// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package cli

import (
	"context"
	"slices"
	"time"

	"github.com/spf13/cobra"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

// completionTimeout bounds what a press of the tab key may take.
const completionTimeout = 3 * time.Second

type completer = func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective)

// completeHosts offers the names of the hosts that are not on the command line yet.
func completeHosts(f *factory) completer {
	return complete(f, func(ctx context.Context, a *api) ([]string, error) {
		hosts, err := list[*nfv1.HostList](ctx, a.hosts(scope{namespace: a.namespace}))
		if err != nil {
			return nil, err
		}
		var names []string
		for _, h := range hosts.Items {
			names = append(names, h.Name)
		}
		return names, nil
	})
}

// completeRollouts offers the names of rollouts, for commands that take one.
func completeRollouts(f *factory) completer {
	rollouts := complete(f, func(ctx context.Context, a *api) ([]string, error) {
		found, err := list[*nfv1.RolloutList](ctx, a.rollouts(scope{namespace: a.namespace}))
		if err != nil {
			return nil, err
		}
		var names []string
		for _, r := range found.Items {
			// What follows the tab is shown beside the name.
			names = append(names, r.Name+"\trelease "+r.Spec.Release+", "+string(r.Status.Phase))
		}
		return names, nil
	})
	return func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return rollouts(cmd, args, typed)
	}
}

// completeFilesAndRollouts offers rollouts, and lets the shell offer files where there is
// none.
func completeFilesAndRollouts(f *factory) completer {
	rollouts := completeRollouts(f)
	return func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		names, _ := rollouts(cmd, args, typed)
		return names, cobra.ShellCompDirectiveDefault
	}
}

// completeRolloutThenHost offers rollouts for the first argument and hosts for the second.
func completeRolloutThenHost(f *factory) completer {
	rollouts, hosts := completeRollouts(f), completeHosts(f)
	return func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		switch len(args) {
		case 0:
			return rollouts(cmd, args, typed)
		case 1:
			return hosts(cmd, args, typed)
		default:
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
	}
}

// complete offers nothing when the API cannot be asked: an error in the middle of a
// command line that is being typed helps nobody. "kubectl-nixfleet __complete" shows it.
func complete(f *factory, names func(context.Context, *api) ([]string, error)) completer {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
		defer cancel()
		a, err := f.api()
		if err != nil {
			cobra.CompErrorln(err.Error())
			return nil, cobra.ShellCompDirectiveError
		}
		all, err := names(ctx, a)
		if err != nil {
			cobra.CompErrorln(err.Error())
			return nil, cobra.ShellCompDirectiveError
		}
		return slices.DeleteFunc(all, func(name string) bool { return slices.Contains(args, name) }), cobra.ShellCompDirectiveNoFileComp
	}
}
