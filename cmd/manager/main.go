// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

// Command nixfleet-manager runs the controllers of Hosts, Releases and Rollouts and the
// gateway that agents connect to, against a Kubernetes API.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime/debug"

	"github.com/spf13/pflag"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client/config"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"

	"github.com/nixfleet/nixfleet/internal/manager"
	"github.com/nixfleet/nixfleet/internal/version"
)

// gcPercent makes the collector run twice as often as Go's default. What the manager holds
// is a cache of the fleet, which lives long: with ten thousand hosts this takes a fifth
// off the resident memory, for work that cannot be measured when the fleet is quiet.
const gcPercent = 50

func main() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	err := run(ctrl.SetupSignalHandler(), os.Args[1:], os.Stdout)
	switch {
	case errors.Is(err, pflag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "nixfleet-manager:", err)
		os.Exit(1)
	}
}

// run is the program: it returns when ctx ends or when it cannot go on.
func run(ctx context.Context, args []string, stdout io.Writer) error {
	options := manager.NewOptions()
	logging := zap.Options{}
	showVersion := false
	flags := newFlags(&options, &logging, &showVersion, stdout)
	if err := flags.Parse(args); err != nil {
		return err
	}
	if showVersion {
		_, err := fmt.Fprintln(stdout, "nixfleet-manager", version.String())
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q; every setting is a flag, see --help", flags.Arg(0))
	}
	if err := options.Validate(); err != nil {
		return err
	}
	log := zap.New(zap.UseFlagOptions(&logging))
	ctrl.SetLogger(log)
	klog.SetLogger(log.WithName("client"))
	options.Log = log
	cfg, err := ctrl.GetConfig()
	if err != nil {
		return fmt.Errorf("find the Kubernetes API: %w; run in a cluster, or set --kubeconfig", err)
	}
	mgr, err := manager.New(cfg, options)
	if err != nil {
		return err
	}
	log.Info("Starting", "version", version.String(), "api", cfg.Host)
	return mgr.Start(ctx)
}

func newFlags(options *manager.Options, logging *zap.Options, showVersion *bool, stdout io.Writer) *pflag.FlagSet {
	flags := pflag.NewFlagSet("nixfleet-manager", pflag.ContinueOnError)
	flags.SetOutput(stdout)
	flags.SortFlags = false
	options.AddFlags(flags)
	flags.BoolVar(showVersion, "version", false, "print the version and exit")
	others := flag.NewFlagSet("", flag.ContinueOnError)
	logging.BindFlags(others)
	config.RegisterFlags(others)
	flags.AddGoFlagSet(others)
	return flags
}
