// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package main

import (
	"os"
	"path/filepath"

	"sigs.k8s.io/yaml"
)

// startAgent writes the configuration of a host's agent and starts it.
func (d *demo) startAgent(h *host) error {
	config, err := yaml.Marshal(map[string]any{
		"server":            "https://" + d.gatewayAddress(),
		"hostName":          h.name,
		"namespace":         "fleet",
		"caFile":            filepath.Join(d.controlPlaneDir(), "pki", "gateway-ca.crt"),
		"identityKeyFile":   h.keyFile(),
		"trustedPublicKeys": []string{d.key.public},
		"root":              h.root,
		"nixConfDir":        d.path("nix"),
		"heartbeatSeconds":  heartbeatSeconds,
	})
	if err != nil {
		return err
	}
	file := filepath.Join(h.root, "etc", "nixfleet", "agent.yaml")
	if err := os.WriteFile(file, config, 0o600); err != nil {
		return err
	}
	p, err := d.newProcess("agent-"+h.name, d.program(agentProgram), "run", "--config", file)
	if err != nil {
		return err
	}
	h.agent = p
	return d.start(p)
}
