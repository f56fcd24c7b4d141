// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package options

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/validation"
)

const (
	defaultBindAddress    = "127.0.0.1"
	defaultSecurePort     = 6443
	defaultGatewayAddress = "127.0.0.1:8443"
	defaultOfflineAfter   = 3 * time.Minute
)

// Options is the configuration of a control plane.
type Options struct {
	// DataDir holds everything that has to survive a restart.
	DataDir string

	// BindAddress is the IP address of the Kubernetes API.
	BindAddress string
	// SecurePort is the port of the Kubernetes API; 0 takes a free one.
	SecurePort int
	// APINames are further names and IP addresses under which clients reach
	// the API; they get into its certificate.
	APINames []string

	// GatewayAddress is host:port of the agent gateway.
	GatewayAddress string
	// GatewayNames are further names and IP addresses under which hosts reach
	// the gateway; they get into its certificate.
	GatewayNames []string

	// HostOfflineAfter is how long a host may be silent before it counts as offline.
	HostOfflineAfter time.Duration

	// MetricsAddress serves Prometheus metrics over plain HTTP; "0" does not.
	MetricsAddress string
}

// New returns options with the defaults: only this machine can connect.
func New() *Options {
	return &Options{
		BindAddress:    defaultBindAddress,
		SecurePort:     defaultSecurePort,
		GatewayAddress: defaultGatewayAddress,

		HostOfflineAfter: defaultOfflineAfter,
		MetricsAddress:   "0",
	}
}

// AddFlags adds one flag for each option.
func (o *Options) AddFlags(flags *pflag.FlagSet) {
	flags.StringVar(&o.DataDir, "data-dir", o.DataDir,
		"directory for everything that has to survive a restart: etcd's data, certificates, the admin kubeconfig. "+
			"It is made when missing. Required")
	flags.StringVar(&o.BindAddress, "bind-address", o.BindAddress,
		"IP address on which the Kubernetes API listens; 0.0.0.0 or :: for all")
	flags.IntVar(&o.SecurePort, "secure-port", o.SecurePort,
		"port of the Kubernetes API; 0 takes a free one, which the admin kubeconfig names")
	flags.StringArrayVar(&o.APINames, "api-name", nil,
		"another DNS name or IP address under which clients reach the Kubernetes API, for its certificate; may be repeated")
	flags.StringVar(&o.GatewayAddress, "gateway-address", o.GatewayAddress,
		"host:port on which the gateway listens for agents; port 0 takes a free one")
	flags.StringArrayVar(&o.GatewayNames, "gateway-name", nil,
		"another DNS name or IP address under which hosts reach the gateway, for its certificate; may be repeated")
	flags.DurationVar(&o.HostOfflineAfter, "host-offline-after", o.HostOfflineAfter,
		"how long the Lease of a host may stand still before the host counts as offline; agents renew it once a minute")
	flags.StringVar(&o.MetricsAddress, "metrics-bind-address", o.MetricsAddress,
		`address that serves Prometheus metrics over plain HTTP, such as 127.0.0.1:8080; "0" for none`)
}

// Validate reports everything that is wrong, each with the flag that says it.
func (o *Options) Validate() error {
	return errors.Join(
		o.validateDataDir(),
		o.validateBindAddress(),
		validatePort("--secure-port", o.SecurePort),
		o.validateGatewayAddress(),
		validateNames("--api-name", o.APINames),
		validateNames("--gateway-name", o.GatewayNames),
		o.validateManager(),
	)
}

// validateManager refuses here what the manager would refuse later, when certificates
// and data have been written already.
func (o *Options) validateManager() error {
	var errs []error
	if o.HostOfflineAfter < time.Second {
		errs = append(errs, fmt.Errorf("--host-offline-after is %s; it must be at least 1s, and more than the minute between two renewals of an agent to be of use", o.HostOfflineAfter))
	}
	if a := o.MetricsAddress; a != "0" && a != "" {
		if _, _, err := net.SplitHostPort(a); err != nil {
			errs = append(errs, fmt.Errorf("--metrics-bind-address %q is not host:port, such as 127.0.0.1:8080, nor \"0\" for none", a))
		}
	}
	return errors.Join(errs...)
}

func (o *Options) validateDataDir() error {
	if o.DataDir == "" {
		return errors.New("--data-dir is required: give the directory for the control plane's data, such as /var/lib/nixfleet-control-plane")
	}
	return nil
}

func (o *Options) validateBindAddress() error {
	if _, err := netip.ParseAddr(o.BindAddress); err != nil {
		return fmt.Errorf("--bind-address %q is not an IP address, such as 127.0.0.1 or 0.0.0.0", o.BindAddress)
	}
	return nil
}

func (o *Options) validateGatewayAddress() error {
	const flag = "--gateway-address"
	host, port, err := net.SplitHostPort(o.GatewayAddress)
	if err != nil {
		return fmt.Errorf("%s %q is not host:port, such as 0.0.0.0:8443", flag, o.GatewayAddress)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		return fmt.Errorf("%s %q: port %q is not a number", flag, o.GatewayAddress, port)
	}
	if host == "" {
		return validatePort(flag, number)
	}
	return errors.Join(validatePort(flag, number), validateNames(flag, []string{host}))
}

func validatePort(flag string, port int) error {
	if port < 0 || port > 65535 {
		return fmt.Errorf("%s: port %d is not between 0 and 65535", flag, port)
	}
	return nil
}

// validateNames refuses what a certificate could not carry.
func validateNames(flag string, names []string) error {
	var errs []error
	for _, name := range names {
		if _, err := netip.ParseAddr(name); err == nil {
			continue
		}
		if problems := validation.IsDNS1123Subdomain(name); len(problems) > 0 {
			errs = append(errs, fmt.Errorf("%s %q is neither an IP address nor a DNS name in lower case", flag, name))
		}
	}
	return errors.Join(errs...)
}
