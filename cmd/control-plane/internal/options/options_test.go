// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package options

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
)

func parse(t *testing.T, args ...string) *Options {
	t.Helper()
	o := New()
	flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
	o.AddFlags(flags)
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	return o
}

func TestDefaultsReachThisMachineAlone(t *testing.T) {
	o := parse(t, "--data-dir=/data")
	if err := o.Validate(); err != nil {
		t.Fatal(err)
	}
	want := &Options{
		DataDir: "/data", BindAddress: "127.0.0.1", SecurePort: 6443, GatewayAddress: "127.0.0.1:8443",
		HostOfflineAfter: 3 * time.Minute, MetricsAddress: "0",
	}
	if diff := cmp.Diff(want, o); diff != "" {
		t.Errorf("options (-want +got):\n%s", diff)
	}
}

func TestValidate(t *testing.T) {
	tests := map[string]struct {
		args []string
		// want are parts of the message; none means valid.
		want []string
	}{
		"all set": {args: []string{
			"--data-dir=d", "--bind-address=::", "--secure-port=0", "--api-name=api.example.com", "--api-name=10.0.0.1",
			"--gateway-address=fleet.example.com:443", "--gateway-name=2001:db8::1",
		}},
		"gateway on all addresses": {args: []string{"--data-dir=d", "--gateway-address=:8443"}},
		"no data directory":        {want: []string{"--data-dir is required"}},
		"a name to bind to":        {args: []string{"--data-dir=d", "--bind-address=localhost"}, want: []string{`--bind-address "localhost"`}},
		"port too high":            {args: []string{"--data-dir=d", "--secure-port=65536"}, want: []string{"--secure-port", "65536"}},
		"negative port":            {args: []string{"--data-dir=d", "--secure-port=-1"}, want: []string{"--secure-port"}},
		"gateway without port":     {args: []string{"--data-dir=d", "--gateway-address=127.0.0.1"}, want: []string{"--gateway-address", "host:port"}},
		"gateway with named port":  {args: []string{"--data-dir=d", "--gateway-address=127.0.0.1:https"}, want: []string{`"https" is not a number`}},
		"gateway port too high":    {args: []string{"--data-dir=d", "--gateway-address=127.0.0.1:70000"}, want: []string{"--gateway-address", "70000"}},
		"gateway host is no name":  {args: []string{"--data-dir=d", "--gateway-address=not_a_name:1"}, want: []string{`--gateway-address "not_a_name"`}},
		"name with a port":         {args: []string{"--data-dir=d", "--gateway-name=fleet.example.com:8443"}, want: []string{"--gateway-name"}},
		"a wildcard":               {args: []string{"--data-dir=d", "--api-name=*.example.com"}, want: []string{"--api-name"}},
		"offline window too short": {args: []string{"--data-dir=d", "--host-offline-after=1ms"}, want: []string{"--host-offline-after is 1ms"}},
		"metrics nowhere":          {args: []string{"--data-dir=d", "--metrics-bind-address=nonsense"}, want: []string{`--metrics-bind-address "nonsense"`}},
		"everything wrong is told at once": {
			args: []string{"--bind-address=x", "--secure-port=-1", "--gateway-address=x", "--gateway-name=_"},
			want: []string{"--data-dir", "--bind-address", "--secure-port", "--gateway-address", "--gateway-name"},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			err := parse(t, tc.args...).Validate()
			if len(tc.want) == 0 && err != nil {
				t.Fatal(err)
			}
			for _, part := range tc.want {
				if err == nil || !strings.Contains(err.Error(), part) {
					t.Errorf("got %v, want an error with %q", err, part)
				}
			}
		})
	}
}

func TestHosts(t *testing.T) {
	tests := map[string]struct {
		args             []string
		api, gateway     []string
		notAPI, notGates []string
	}{
		"defaults": {
			api:     []string{"localhost", "127.0.0.1", "::1", "kubernetes.default.svc"},
			gateway: []string{"localhost", "127.0.0.1", "::1"},
		},
		"own address and names": {
			args:    []string{"--bind-address=10.0.0.1", "--api-name=api.example.com", "--gateway-address=fleet.example.com:8443", "--gateway-name=10.0.0.2"},
			api:     []string{"127.0.0.1", "10.0.0.1", "api.example.com"},
			gateway: []string{"127.0.0.1", "fleet.example.com", "10.0.0.2"},
		},
		"all addresses": {
			args:     []string{"--bind-address=0.0.0.0", "--gateway-address=[::]:8443"},
			notAPI:   []string{"0.0.0.0"},
			notGates: []string{"::"},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			o := parse(t, tc.args...)
			checkHosts(t, "API", o.APIHosts(), tc.api, tc.notAPI)
			checkHosts(t, "gateway", o.GatewayHosts(), tc.gateway, tc.notGates)
		})
	}
}

func checkHosts(t *testing.T, what string, got, want, unwanted []string) {
	t.Helper()
	for _, host := range want {
		if !slices.Contains(got, host) {
			t.Errorf("%s: %v lacks %s", what, got, host)
		}
	}
	for _, host := range unwanted {
		if slices.Contains(got, host) {
			t.Errorf("%s: %v has %s", what, got, host)
		}
	}
}
