// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package controlplane

import (
	"fmt"

	"k8s.io/client-go/rest"

	"github.com/nixfleet/nixfleet/internal/manager"
)

// startManager starts the controllers and the gateway. They act under an identity of
// their own, with the rights of config/rbac, as they would on a cluster: what they may
// not do there they may not do here.
func (p *plane) startManager() error {
	o := manager.NewOptions()
	o.LeaderElect = false // the lock on the data directory is the election
	o.MetricsBindAddress = p.options.MetricsAddress
	o.HealthProbeBindAddress = ""
	o.GatewayListener = p.listeners.gateway
	o.GatewayCertDir = p.certificates.GatewayDir
	o.HostOfflineAfter = p.options.HostOfflineAfter
	o.Log = p.log
	mgr, err := manager.New(p.managerConfig(), o)
	if err != nil {
		return fmt.Errorf("the manager: %w", err)
	}
	p.stack.Start("manager", mgr.Start)
	return nil
}

func (p *plane) managerConfig() *rest.Config {
	return &rest.Config{
		Host: localURL(p.listeners.api.Addr()),
		TLSClientConfig: rest.TLSClientConfig{
			CAFile:   p.certificates.CA.CertFile,
			CertFile: p.certificates.Manager.CertFile,
			KeyFile:  p.certificates.Manager.KeyFile,
		},
	}
}
