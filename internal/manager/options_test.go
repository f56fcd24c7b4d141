// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package manager

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/spf13/pflag"

	"github.com/nixfleet/nixfleet/internal/gateway"
)

func certDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{gateway.CertName, gateway.KeyName} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestFlagsSetEveryOption(t *testing.T) {
	got := NewOptions()
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	got.AddFlags(flags)
	if err := flags.Parse([]string{
		"--leader-elect=false", "--leader-election-namespace=other", "--metrics-bind-address=0", "--health-probe-bind-address=127.0.0.1:1",
		"--gateway-bind-address=127.0.0.1:2", "--gateway-cert-dir=/tls", "--host-offline-after=7s", "--concurrency=9",
		"--metrics-secure", "--metrics-cert-dir=/metrics-tls",
	}); err != nil {
		t.Fatal(err)
	}
	want := Options{
		LeaderElectionNamespace: "other", MetricsBindAddress: "0", HealthProbeBindAddress: "127.0.0.1:1",
		GatewayBindAddress: "127.0.0.1:2", GatewayCertDir: "/tls", HostOfflineAfter: 7 * time.Second, Concurrency: 9,
		MetricsSecure: true, MetricsCertDir: "/metrics-tls",
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(logr.Logger{})); diff != "" {
		t.Errorf("options (-want +got):\n%s", diff)
	}
}

func TestMetricsStayOnLoopbackUnlessAsked(t *testing.T) {
	if host, _, err := net.SplitHostPort(NewOptions().MetricsBindAddress); err != nil || !net.ParseIP(host).IsLoopback() {
		t.Errorf("metrics are served on %s", NewOptions().MetricsBindAddress)
	}
}

func TestValidate(t *testing.T) {
	tests := map[string]struct {
		change func(*Options)
		says   []string
	}{
		"the defaults": {func(*Options) {}, nil},
		"everything off": {func(o *Options) {
			o.MetricsBindAddress, o.HealthProbeBindAddress, o.GatewayBindAddress = "0", "", "0"
			o.GatewayCertDir = ""
		}, nil},
		"no leader, no namespace":      {func(o *Options) { o.LeaderElect, o.LeaderElectionNamespace = false, "" }, nil},
		"no namespace":                 {func(o *Options) { o.LeaderElectionNamespace = "" }, []string{"--leader-election-namespace", "--leader-elect=false"}},
		"metrics without a port":       {func(o *Options) { o.MetricsBindAddress = "127.0.0.1" }, []string{"--metrics-bind-address", "127.0.0.1:8443"}},
		"probes on port x":             {func(o *Options) { o.HealthProbeBindAddress = ":x" }, []string{"--health-probe-bind-address", `":x"`}},
		"gateway out of range":         {func(o *Options) { o.GatewayBindAddress = ":70000" }, []string{"--gateway-bind-address", "70000"}},
		"no window":                    {func(o *Options) { o.HostOfflineAfter = 0 }, []string{"--host-offline-after", "at least 1s"}},
		"a negative window":            {func(o *Options) { o.HostOfflineAfter = -time.Minute }, []string{"--host-offline-after"}},
		"no workers":                   {func(o *Options) { o.Concurrency = 0 }, []string{"--concurrency", "between 1 and 256"}},
		"no certificate":               {func(o *Options) { o.GatewayCertDir = "/does/not/exist" }, []string{"/does/not/exist/tls.crt", "--gateway-cert-dir", "--gateway-bind-address=0"}},
		"a certificate for plain HTTP": {func(o *Options) { o.MetricsCertDir = "/tls" }, []string{"--metrics-cert-dir", "--metrics-secure"}},
		"several at once": {func(o *Options) { o.Concurrency, o.HostOfflineAfter, o.MetricsBindAddress = -1, 0, "?" },
			[]string{"--concurrency", "--host-offline-after", "--metrics-bind-address"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			o := NewOptions()
			o.GatewayCertDir = certDir(t)
			tt.change(&o)
			err := o.Validate()
			if (err != nil) != (tt.says != nil) {
				t.Fatalf("Validate = %v", err)
			}
			for _, part := range tt.says {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("Validate = %q, does not contain %q", err, part)
				}
			}
		})
	}
}

func TestPortErrorsNameTheFlag(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close() //nolint:errcheck // Only held.
	_, failure := (&net.ListenConfig{}).Listen(context.Background(), "tcp", taken.Addr().String())
	if !errors.Is(failure, syscall.EADDRINUSE) {
		t.Fatalf("listening twice gave %v", failure)
	}
	for flag, set := range map[string]func(*Options, string){
		"--metrics-bind-address":      func(o *Options, a string) { o.MetricsBindAddress = a },
		"--health-probe-bind-address": func(o *Options, a string) { o.HealthProbeBindAddress = a },
		"--gateway-bind-address":      func(o *Options, a string) { o.GatewayBindAddress = a },
	} {
		o := NewOptions()
		set(&o, taken.Addr().String())
		got := o.explain(failure)
		if !errors.Is(got, syscall.EADDRINUSE) || !strings.Contains(got.Error(), flag) {
			t.Errorf("explain = %v, want it to name %s", got, flag)
		}
	}
	other := errors.New("something else")
	o := NewOptions()
	if got := o.explain(other); !errors.Is(got, other) || got.Error() != other.Error() {
		t.Errorf("explain changed %v to %v", other, got)
	}
}
