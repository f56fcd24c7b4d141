// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

// Command agents runs many agents in one process: real ones, each with a key, a state
// directory and a connection of its own, on hosts that exist in memory only and fail as
// asked (internal/agent/simulated). It registers the hosts, rolls a release out to them
// and says what became of it.
//
//	nixfleet-control-plane --data-dir /tmp/cp &
//	go run ./hack/agents --kubeconfig /tmp/cp/admin.kubeconfig --ca /tmp/cp/pki/gateway-ca.crt \
//	    --server https://127.0.0.1:8443 --agents 500 --fault unhealthy=2 --fault slow=5
package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"github.com/nixfleet/nixfleet/internal/agent/simulated"
)

// options are the flags.
type options struct {
	kubeconfig, namespace, prefix string
	server, ca, release           string
	agents                        int
	heartbeat, timeout            time.Duration
	faults                        map[string]int
	behavior                      simulated.Behavior
	keep, verbose                 bool
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil && !errors.Is(err, pflag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "agents:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	pem, err := os.ReadFile(o.ca)
	if err != nil {
		return fmt.Errorf("--ca: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return fmt.Errorf("--ca %s holds no certificate in PEM", o.ca)
	}
	dir, err := os.MkdirTemp("", "nixfleet-agents-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // it lies in the directory for such things
	level := slog.LevelError
	if o.verbose {
		level = slog.LevelInfo
	}
	f := &fleet{options: o, roots: roots, dir: dir, out: os.Stdout, log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))}
	if err := f.connect(); err != nil {
		return err
	}
	return f.run(ctx)
}

func parse(args []string) (options, error) {
	o := options{}
	flags := pflag.NewFlagSet("agents", pflag.ContinueOnError)
	flags.SortFlags = false
	flags.StringVar(&o.kubeconfig, "kubeconfig", os.Getenv("KUBECONFIG"), "kubeconfig with the right to write Hosts, Releases and Rollouts")
	flags.StringVar(&o.namespace, "namespace", "fleet", "namespace of the Hosts; made if it is not there")
	flags.StringVar(&o.server, "server", "https://127.0.0.1:8443", "URL of the agent gateway")
	flags.StringVar(&o.ca, "ca", "", "certificates that the gateway's must lead to")
	flags.IntVar(&o.agents, "agents", 100, "how many")
	flags.StringVar(&o.prefix, "prefix", "sim", "names of Hosts are PREFIX-0000 and so on")
	flags.StringVar(&o.release, "release", "", "name of the Release and Rollout; default: PREFIX and the time")
	flags.DurationVar(&o.heartbeat, "heartbeat", time.Minute, "how often the Lease is renewed")
	flags.DurationVar(&o.behavior.Fetch, "fetch", 2*time.Second, "how long a fetch takes")
	flags.DurationVar(&o.behavior.Activate, "activate", time.Second, "how long an activation takes")
	flags.StringToIntVar(&o.faults, "fault", nil, fmt.Sprintf("FAULT=SHARE of 100 hosts; may be repeated. Faults: %v", simulated.Faults()))
	flags.StringVar(&o.behavior.Seed, "seed", "", "another seed has other hosts fail")
	flags.DurationVar(&o.timeout, "timeout", 30*time.Minute, "how long the rollout may take")
	flags.BoolVar(&o.keep, "keep", false, "leave the objects there, and go on until interrupted")
	flags.BoolVarP(&o.verbose, "verbose", "v", false, "log what agents do")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if o.release == "" {
		o.release = o.prefix + "-" + time.Now().UTC().Format("20060102-150405")
	}
	o.behavior.Shares = map[simulated.Fault]int{}
	for fault, share := range o.faults {
		o.behavior.Shares[simulated.Fault(fault)] = share
	}
	switch {
	case flags.NArg() > 0:
		return o, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case o.kubeconfig == "" || o.ca == "":
		return o, errors.New("--kubeconfig and --ca are needed; nixfleet-control-plane writes both into its data directory")
	case o.agents < 1:
		return o, fmt.Errorf("--agents %d: there has to be one", o.agents)
	}
	return o, o.behavior.Validate()
}
