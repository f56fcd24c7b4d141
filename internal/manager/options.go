// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package manager

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/go-logr/logr"
	"github.com/spf13/pflag"

	"github.com/nixfleet/nixfleet/controllers/host"
	"github.com/nixfleet/nixfleet/internal/gateway"
)

// Flags. Messages name them, so that who reads one knows what to change.
const (
	flagLeaderElect             = "leader-elect"
	flagLeaderElectionNamespace = "leader-election-namespace"
	flagMetricsAddress          = "metrics-bind-address"
	flagMetricsSecure           = "metrics-secure"
	flagMetricsCertDir          = "metrics-cert-dir"
	flagProbeAddress            = "health-probe-bind-address"
	flagGatewayAddress          = "gateway-bind-address"
	flagGatewayCertDir          = "gateway-cert-dir"
	flagOfflineAfter            = "host-offline-after"
	flagConcurrency             = "concurrency"
)

// off is the address of a server that does not run.
const off = "0"

const (
	minOfflineAfter = time.Second
	maxConcurrency  = 256
)

// Options says how a manager runs. NewOptions has the defaults.
type Options struct {
	// LeaderElect lets only one of several replicas run the controllers. Default: true.
	LeaderElect bool
	// LeaderElectionNamespace holds the Lease by which the leader is elected. Default:
	// nixfleet-system.
	LeaderElectionNamespace string
	// MetricsBindAddress serves Prometheus metrics. Default: 127.0.0.1:8080. "0" or empty:
	// not served.
	MetricsBindAddress string
	// MetricsSecure serves metrics over TLS 1.3, to whom the Kubernetes API knows by a
	// token and allows to get the path /metrics. Default: false, which is plain HTTP for
	// everyone who reaches the address.
	MetricsSecure bool
	// MetricsCertDir holds tls.crt and tls.key of the metrics, which are read again when
	// they change. Default: none, which is a certificate made at the start that nobody has
	// signed.
	MetricsCertDir string
	// HealthProbeBindAddress serves /healthz and /readyz. Default: :8081. "0" or empty:
	// not served.
	HealthProbeBindAddress string
	// GatewayBindAddress is where agents connect. Default: :8443. "0" or empty: there is
	// no gateway, unless GatewayListener is set.
	GatewayBindAddress string
	// GatewayListener is used instead of GatewayBindAddress, by programs that have opened
	// the port before. There is no flag for it.
	GatewayListener net.Listener
	// GatewayCertDir holds tls.crt and tls.key of the gateway. They are read again when
	// they change. Default: /etc/nixfleet/gateway-tls.
	GatewayCertDir string
	// HostOfflineAfter is how long the Lease of a host may stand still before the host
	// counts as offline. Default: 3 min, at least 1 s; agents renew once a minute.
	HostOfflineAfter time.Duration
	// Concurrency is how many objects of each kind are reconciled at once. Default: 4,
	// at most 256.
	Concurrency int
	// Log is where everything is logged. Default: controller-runtime's logger.
	Log logr.Logger
}

// NewOptions returns the defaults.
func NewOptions() Options {
	return Options{
		LeaderElect:             true,
		LeaderElectionNamespace: "nixfleet-system",
		MetricsBindAddress:      "127.0.0.1:8080",
		HealthProbeBindAddress:  ":8081",
		GatewayBindAddress:      gateway.DefaultBindAddress,
		GatewayCertDir:          "/etc/nixfleet/gateway-tls",
		HostOfflineAfter:        host.DefaultOfflineAfter,
		Concurrency:             4,
	}
}

// AddFlags adds a flag for each option. What the options hold is the default.
func (o *Options) AddFlags(fs *pflag.FlagSet) {
	fs.BoolVar(&o.LeaderElect, flagLeaderElect, o.LeaderElect,
		"let only one of several replicas run the controllers")
	fs.StringVar(&o.LeaderElectionNamespace, flagLeaderElectionNamespace, o.LeaderElectionNamespace,
		"namespace of the Lease by which the leader is elected")
	fs.StringVar(&o.MetricsBindAddress, flagMetricsAddress, o.MetricsBindAddress,
		`address that serves Prometheus metrics; "0" for none`)
	fs.BoolVar(&o.MetricsSecure, flagMetricsSecure, o.MetricsSecure,
		"serve metrics over TLS, to whom the Kubernetes API knows by a token and allows to get /metrics; else over plain HTTP, to everyone")
	fs.StringVar(&o.MetricsCertDir, flagMetricsCertDir, o.MetricsCertDir,
		"directory with tls.crt and tls.key of the metrics; empty makes a certificate that nobody has signed")
	fs.StringVar(&o.HealthProbeBindAddress, flagProbeAddress, o.HealthProbeBindAddress,
		`address that serves /healthz and /readyz; "0" for none`)
	fs.StringVar(&o.GatewayBindAddress, flagGatewayAddress, o.GatewayBindAddress,
		`address that agents connect to; "0" for no gateway`)
	fs.StringVar(&o.GatewayCertDir, flagGatewayCertDir, o.GatewayCertDir,
		"directory with tls.crt and tls.key of the gateway")
	fs.DurationVar(&o.HostOfflineAfter, flagOfflineAfter, o.HostOfflineAfter,
		"how long the Lease of a host may stand still before the host counts as offline")
	fs.IntVar(&o.Concurrency, flagConcurrency, o.Concurrency,
		"how many objects of each kind are reconciled at once")
}

// Validate says everything that is wrong with the options, each with the flag to change.
func (o *Options) Validate() error {
	var errs []error
	for flag, address := range o.addresses() {
		if err := checkAddress(flag, address); err != nil {
			errs = append(errs, err)
		}
	}
	if o.LeaderElect && o.LeaderElectionNamespace == "" {
		errs = append(errs, fmt.Errorf("--%s is empty; name the namespace that the manager runs in, or run one replica with --%s=false", flagLeaderElectionNamespace, flagLeaderElect))
	}
	if o.HostOfflineAfter < minOfflineAfter {
		errs = append(errs, fmt.Errorf("--%s is %s; it must be at least %s, and more than the minute between two renewals of an agent to be of use", flagOfflineAfter, o.HostOfflineAfter, minOfflineAfter))
	}
	if o.Concurrency < 1 || o.Concurrency > maxConcurrency {
		errs = append(errs, fmt.Errorf("--%s is %d; it must be between 1 and %d", flagConcurrency, o.Concurrency, maxConcurrency))
	}
	if o.MetricsCertDir != "" && !o.MetricsSecure {
		errs = append(errs, fmt.Errorf("--%s is of no use without --%s", flagMetricsCertDir, flagMetricsSecure))
	}
	if o.hasGateway() {
		errs = append(errs, o.checkCertDir())
	}
	return errors.Join(errs...)
}

func (o *Options) hasGateway() bool {
	return o.GatewayListener != nil || isOn(o.GatewayBindAddress)
}

// addresses returns the addresses that are listened on, by flag.
func (o *Options) addresses() map[string]string {
	all := map[string]string{flagMetricsAddress: o.MetricsBindAddress, flagProbeAddress: o.HealthProbeBindAddress}
	if o.GatewayListener == nil {
		all[flagGatewayAddress] = o.GatewayBindAddress
	}
	for flag, address := range all {
		if !isOn(address) {
			delete(all, flag)
		}
	}
	return all
}

func isOn(address string) bool { return address != "" && address != off }

func checkAddress(flag, address string) error {
	if _, err := net.ResolveTCPAddr("tcp", address); err != nil {
		return fmt.Errorf(`--%s is %q, which is no address to listen on: %w; it must be like 127.0.0.1:8443 or :8443, or "0" for none`, flag, address, err)
	}
	return nil
}

func (o *Options) checkCertDir() error {
	for _, name := range []string{gateway.CertName, gateway.KeyName} {
		path := filepath.Join(o.GatewayCertDir, name)
		if _, err := os.Stat(path); err != nil {
			return fmt.Errorf("the gateway needs a certificate: %w; put tls.crt and tls.key into the directory of --%s, or run without a gateway by --%s=0",
				err, flagGatewayCertDir, flagGatewayAddress)
		}
	}
	return nil
}
