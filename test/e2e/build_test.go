//go:build e2e

// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package e2e

import (
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/nix"
)

//go:embed systems.nix
var systemsNix []byte

// hostCA is where every host has the gateway's certificate.
const hostCA = "/etc/gateway-ca.pem"

// system is a system to build, as systems.nix takes it.
type system struct {
	Host  string `json:"host"`
	Label string `json:"label"`

	// Before, After and Boot are shell that switch-to-configuration runs: before it changes
	// anything, at its end, and for "boot".
	Before string `json:"before"`
	After  string `json:"after"`
	Boot   string `json:"boot"`

	// Units are services beside the agent's.
	Units map[string]string `json:"units"`

	// Agent is the version of the agent, 0 for a system without one. RestartSec is how
	// long systemd waits before it starts one that has ended.
	Agent      int `json:"agent"`
	RestartSec int `json:"restartSec"`

	// Config is added to the agent's configuration.
	Config map[string]any `json:"config"`

	// Checks are the system's health checks.
	Checks []map[string]any `json:"checks"`
}

// app is a service that every system has. It says which system it is of.
func app(label, command string) string {
	return "[Unit]\nDescription=The application of " + label + "\n[Service]\nExecStart=" + command + "\n"
}

// newSystem is a system that works.
func newSystem(host, label string) system {
	return system{
		Host: host, Label: label, Agent: 1, RestartSec: 1, Config: map[string]any{},
		Units:  map[string]string{"app.service": app(label, "/usr/bin/sleep infinity")},
		Checks: []map[string]any{{"name": "app", "type": "systemd", "timeoutSeconds": 5, "systemd": map[string]any{"units": []string{"app.service"}}}},
	}
}

func (f *fleet) nixEnv() []string {
	return []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + f.path("home"), "NIX_CONF_DIR=" + f.path("nix"), "NIX_USER_CONF_FILES=", "NIX_REMOTE=",
	}
}

func (f *fleet) nix(program string, args ...string) (string, error) {
	return output(f.nixEnv(), program, args...)
}

func (f *fleet) makeKey() error {
	conf := "sandbox = false\nbuild-users-group =\nexperimental-features = nix-command\nsubstituters =\n"
	if err := os.WriteFile(f.path("nix", "nix.conf"), []byte(conf), 0o600); err != nil {
		return err
	}
	if _, err := f.nix("nix-store", "--generate-binary-cache-key", "e2e-1", f.path("nix", "key.sec"), f.path("nix", "key.pub")); err != nil {
		return err
	}
	public, err := os.ReadFile(f.path("nix", "key.pub"))
	f.key = strings.TrimSpace(string(public))
	return err
}

func platform() nfv1.Platform {
	if runtime.GOARCH == "arm64" {
		return nfv1.PlatformAarch64Linux
	}
	return nfv1.PlatformX8664Linux
}

// build builds, signs and uploads systems, and answers their paths in that order.
func (f *fleet) build(systems ...system) ([]nix.StorePath, error) {
	f.building.Lock() // two builds at once would race to make the store
	defer f.building.Unlock()
	agent, err := filepath.Abs("../../bin/nixfleet-agent")
	if err != nil {
		return nil, err
	}
	spec, err := json.Marshal(map[string]any{
		"platform": platform(), "agent": agent, "systems": systems,
		"config": map[string]any{
			"server": f.server(), "namespace": namespace, "caFile": hostCA, "trustedPublicKeys": []string{f.key},
			"identityKeyFile": "/etc/host.key", "nixConfDir": "/etc/nix", "heartbeatSeconds": 2, "logLevel": "debug",
		},
	})
	if err != nil {
		return nil, err
	}
	input, expression := f.path("nix", "systems.json"), f.path("nix", "systems.nix")
	if err := errors.Join(os.WriteFile(input, spec, 0o600), os.WriteFile(expression, systemsNix, 0o600)); err != nil {
		return nil, err
	}
	out, err := f.nix("nix-build", "--store", f.path("builder"), expression, "--argstr", "spec", input, "--no-out-link",
		"--option", "sandbox-paths", "/bin /usr /lib /lib64")
	if err != nil {
		return nil, err
	}
	lines := strings.Fields(out)
	if len(lines) != len(systems) {
		return nil, fmt.Errorf("%d systems were built of %d", len(lines), len(systems))
	}
	if _, err := f.nix("nix", append([]string{"store", "sign", "--store", f.path("builder"), "-r", "-k", f.path("nix", "key.sec")}, lines...)...); err != nil {
		return nil, err
	}
	if _, err := f.nix("nix", append([]string{"copy", "--from", f.path("builder"), "--to", "file://" + f.path("cache")}, lines...)...); err != nil {
		return nil, err
	}
	paths := make([]nix.StorePath, len(lines))
	for i, line := range lines {
		if paths[i], err = nix.ParseStorePath(line); err != nil {
			return nil, err
		}
	}
	return paths, nil
}
