// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package controlplane

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/nixfleet/nixfleet/cmd/control-plane/internal/options"
)

// onFreePorts are options with which two planes can live on one machine.
func onFreePorts() *options.Options {
	o := options.New()
	o.SecurePort = 0
	o.GatewayAddress = "127.0.0.1:0"
	return o
}

func TestListenThatFailsNamesTheFlag(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = taken.Close() })
	tests := map[string]struct {
		change func(*options.Options)
		want   []string
	}{
		"API's port is in use": {
			change: func(o *options.Options) { o.SecurePort = taken.Addr().(*net.TCPAddr).Port },
			want:   []string{"Kubernetes API", taken.Addr().String(), "--secure-port"},
		},
		"gateway's port is in use": {
			change: func(o *options.Options) { o.GatewayAddress = taken.Addr().String() },
			want:   []string{"agent gateway", taken.Addr().String(), "--gateway-address"},
		},
		// The range is for documentation: no machine has it.
		"address of another machine": {
			change: func(o *options.Options) { o.BindAddress = "192.0.2.1" },
			want:   []string{"192.0.2.1", "--bind-address"},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			o := onFreePorts()
			tc.change(o)
			_, err := listen(o)
			for _, part := range tc.want {
				if err == nil || !strings.Contains(err.Error(), part) {
					t.Errorf("got %v, want an error with %q", err, part)
				}
			}
		})
	}
}

func TestListenersCloseOnceMore(t *testing.T) {
	l, err := listen(onFreePorts())
	if err != nil {
		t.Fatal(err)
	}
	if err := l.api.Close(); err != nil {
		t.Fatal(err)
	}
	if err := l.close(); err != nil {
		t.Errorf("closing what a server has closed: %v", err)
	}
	if _, err := l.gateway.Accept(); err == nil {
		t.Error("the gateway's listener is still open")
	}
}

func TestLocalURL(t *testing.T) {
	for address, want := range map[string]string{
		"127.0.0.1:6443":     "https://127.0.0.1:6443",
		"0.0.0.0:6443":       "https://127.0.0.1:6443",
		"[::]:6443":          "https://127.0.0.1:6443",
		"[::1]:6443":         "https://[::1]:6443",
		"10.0.0.1:443":       "https://10.0.0.1:443",
		"[2001:db8::1]:6443": "https://[2001:db8::1]:6443",
	} {
		got := localURL(net.TCPAddrFromAddrPort(netip.MustParseAddrPort(address)))
		if got != want {
			t.Errorf("localURL(%s) = %s, want %s", address, got, want)
		}
	}
}
