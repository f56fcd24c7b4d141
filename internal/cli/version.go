// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/client-go/discovery"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/version"
)

func newVersion(f *factory) *cobra.Command {
	var clientOnly bool
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Show the versions of this program, the API server and the fleet's agents",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := write(f.streams.Out, "kubectl-nixfleet  "+version.String()+"\n"); err != nil || clientOnly {
				return err
			}
			return f.serverVersions(cmd.Context())
		},
	}
	cmd.Flags().BoolVar(&clientOnly, "client", false, "Show the version of this program alone, and ask no server")
	return cmd
}

func (f *factory) serverVersions(ctx context.Context) error {
	a, err := f.api()
	if err != nil {
		return err
	}
	client, err := discovery.NewDiscoveryClientForConfig(a.config)
	if err != nil {
		return fmt.Errorf("use the kubeconfig: %w", err)
	}
	server, err := client.ServerVersion()
	if err != nil {
		return fmt.Errorf("ask the API server for its version: %w", err)
	}
	if err := write(f.streams.Out, "Kubernetes API    "+server.GitVersion+"\n"); err != nil {
		return err
	}
	hosts, err := list[*nfv1.HostList](ctx, a.hosts(scope{namespace: a.namespace}))
	if err != nil {
		return err
	}
	return write(f.streams.Out, "agents            "+agentVersions(hosts.Items)+"\n")
}

// agentVersions counts the agents of each version.
func agentVersions(hosts []nfv1.Host) string {
	counts := map[string]int{}
	for i := range hosts {
		if info := hosts[i].Status.NodeInfo; info != nil && info.AgentVersion != "" {
			counts[info.AgentVersion]++
		}
	}
	if len(counts) == 0 {
		return "none has reported"
	}
	var parts []string
	for v, n := range counts {
		parts = append(parts, fmt.Sprintf("%s (%d)", v, n))
	}
	slices.Sort(parts)
	return strings.Join(parts, ", ")
}
