// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package command

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"k8s.io/client-go/rest"
	"k8s.io/component-base/logs"
	"k8s.io/klog/v2"

	"github.com/nixfleet/nixfleet/cmd/control-plane/internal/controlplane"
	"github.com/nixfleet/nixfleet/cmd/control-plane/internal/options"
)

const name = "nixfleet-control-plane"

const long = `Runs a whole NixFleet control plane in one process: etcd, a Kubernetes API
server without pods and nodes, the controllers it needs, and NixFleet's own
manager with the gateway for agents. It needs no cluster.

Everything that has to survive a restart is in the data directory. Once the
control plane is ready, DATA-DIR/admin.kubeconfig is there for kubectl, and
DATA-DIR/pki/gateway-ca.crt is what agents have to trust.`

const examples = `  # Try it out on this machine
  nixfleet-control-plane --data-dir ./control-plane
  kubectl --kubeconfig ./control-plane/admin.kubeconfig get hosts -A

  # Let hosts of the network in, under the name they dial
  nixfleet-control-plane --data-dir /var/lib/nixfleet-control-plane \
    --gateway-address 0.0.0.0:8443 --gateway-name fleet.example.com

  # On a machine that has something else on the usual port
  nixfleet-control-plane --data-dir ./control-plane --secure-port 7443`

// New returns the command. Its context ends on SIGINT and SIGTERM; a second
// signal ends the process at once.
func New() *cobra.Command {
	o := options.New()
	logging := newLogging()
	cmd := &cobra.Command{
		Use:           name + " --data-dir DIR",
		Short:         "NixFleet control plane in one process",
		Long:          long,
		Example:       examples,
		Version:       versions(),
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.Validate(); err != nil {
				return err
			}
			if err := logging.apply(); err != nil {
				return err
			}
			defer logs.FlushLogs()
			return run(cmd.Context(), o)
		},
	}
	cmd.SetVersionTemplate("{{.Name}} {{.Version}}\n")
	o.AddFlags(cmd.Flags())
	logging.addFlags(cmd.Flags())
	return cmd
}

// Execute runs the command with the arguments of the process and returns its
// exit code.
func Execute() int {
	cmd := New()
	if err := cmd.Execute(); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %s\n", name, strings.ReplaceAll(err.Error(), "\n", "\n"+name+": "))
		return 1
	}
	return 0
}

func run(ctx context.Context, o *options.Options) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	// Once asked to stop, the default holds again: a second signal kills.
	context.AfterFunc(ctx, stop)
	defer stop()
	// The API server's clients of itself would log its own warnings.
	rest.SetDefaultWarningHandler(rest.NoWarnings{})
	return controlplane.Run(ctx, o, klog.Background())
}
