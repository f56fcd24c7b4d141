// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package controlplane

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/nixfleet/nixfleet/cmd/control-plane/internal/options"
)

// listenAPI opens the port of the Kubernetes API. It comes before everything
// that takes time, so that a port in use is told at once.
func listenAPI(o *options.Options) (net.Listener, error) {
	address := net.JoinHostPort(o.BindAddress, strconv.Itoa(o.SecurePort))
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("the Kubernetes API cannot listen on %s: %w: %s", address, err, listenAdvice(err, "--secure-port", "--bind-address"))
	}
	return listener, nil
}

// listenAdvice says which flag helps.
func listenAdvice(err error, portFlag, addressFlag string) string {
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		return "another program has that port; end it, or choose another port with " + portFlag
	case errors.Is(err, unix.EACCES):
		return "this user may not open that port; choose one above 1023 with " + portFlag
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return "this machine does not have that address; choose another with " + addressFlag
	default:
		return "see " + addressFlag + " and " + portFlag
	}
}

// localURL is where processes of this machine reach a server that listens on
// address.
func localURL(address net.Addr) string {
	at, err := netip.ParseAddrPort(address.String())
	if err != nil {
		return "https://" + address.String()
	}
	ip := at.Addr().Unmap()
	switch {
	case !ip.IsUnspecified():
	case ip.Is4():
		ip = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	default:
		// A socket for :: takes IPv4 as well, and a machine can be without ::1.
		ip = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return "https://" + netip.AddrPortFrom(ip, at.Port()).String()
}
