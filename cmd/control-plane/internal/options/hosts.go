// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package options

import (
	"net"
	"net/netip"
	"slices"
)

// loopback is how processes of this machine reach a server that listens on
// loopback or on all addresses.
var loopback = []string{"localhost", "127.0.0.1", "::1"}

// APIHosts are the names and addresses that the API server's certificate is
// for.
func (o *Options) APIHosts() []string {
	// The names by which programs written for pods know the API.
	inCluster := []string{"kubernetes", "kubernetes.default", "kubernetes.default.svc"}
	return slices.Concat(serverHosts(o.BindAddress, o.APINames), inCluster)
}

// GatewayHosts are the names and addresses that the gateway's certificate is
// for.
func (o *Options) GatewayHosts() []string {
	host, _, err := net.SplitHostPort(o.GatewayAddress)
	if err != nil {
		host = ""
	}
	return serverHosts(host, o.GatewayNames)
}

// serverHosts leaves the unspecified address out: nobody connects to it by
// that name.
func serverHosts(listen string, names []string) []string {
	hosts := slices.Concat(loopback, names)
	address, err := netip.ParseAddr(listen)
	if listen != "" && (err != nil || !address.IsUnspecified()) {
		hosts = append(hosts, listen)
	}
	return hosts
}
