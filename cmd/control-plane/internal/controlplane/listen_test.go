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

func TestListenOnAPortInUseNamesTheFlag(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = taken.Close() })
	o := options.New()
	o.SecurePort = taken.Addr().(*net.TCPAddr).Port

	_, err = listenAPI(o)

	if err == nil || !strings.Contains(err.Error(), "--secure-port") || !strings.Contains(err.Error(), taken.Addr().String()) {
		t.Fatalf("got %v, want an error that names %s and --secure-port", err, taken.Addr())
	}
}

func TestListenOnAnAddressOfAnotherMachineNamesTheFlag(t *testing.T) {
	o := options.New()
	o.SecurePort = 0
	// From the range for documentation: no machine has it.
	o.BindAddress = "192.0.2.1"

	_, err := listenAPI(o)

	if err == nil || !strings.Contains(err.Error(), "--bind-address") {
		t.Fatalf("got %v, want an error that names --bind-address", err)
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
