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

// listeners are the ports of a control plane. They are opened before anything
// that takes time, so that a port in use is told at once.
type listeners struct {
	api     net.Listener
	gateway net.Listener
}

func listen(o *options.Options) (*listeners, error) {
	apiAddress := net.JoinHostPort(o.BindAddress, strconv.Itoa(o.SecurePort))
	api, err := net.Listen("tcp", apiAddress)
	if err != nil {
		return nil, listenError("the Kubernetes API", apiAddress, err, "--secure-port", "--bind-address")
	}
	gateway, err := net.Listen("tcp", o.GatewayAddress)
	if err != nil {
		err = listenError("the agent gateway", o.GatewayAddress, err, "--gateway-address", "--gateway-address")
		return nil, errors.Join(err, api.Close())
	}
	return &listeners{api: api, gateway: gateway}, nil
}

// close closes what the servers have not closed already.
func (l *listeners) close() error {
	var errs []error
	for _, listener := range []net.Listener{l.api, l.gateway} {
		if err := listener.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func listenError(who, address string, err error, portFlag, addressFlag string) error {
	return fmt.Errorf("%s cannot listen on %s: %w: %s", who, address, err, listenAdvice(err, portFlag, addressFlag))
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
		return "choose another with " + addressFlag
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
	if ip.IsUnspecified() {
		// A socket for :: takes IPv4 as well, and a machine can be without ::1.
		ip = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return "https://" + netip.AddrPortFrom(ip, at.Port()).String()
}
