// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

// programs are built by "make build kubectl".
const (
	controlPlaneProgram = "nixfleet-control-plane"
	agentProgram        = "nixfleet-agent"
	pluginProgram       = "kubectl-nixfleet"
	kubectlProgram      = "kubectl"
)

// checkMachine says all that is missing on this machine, at once.
func checkMachine() error {
	var errs []error
	if runtime.GOOS != "linux" {
		errs = append(errs, errors.New("the demo needs Linux: Nix builds the hosts' systems in mount namespaces"))
	}
	if os.Geteuid() != 0 {
		errs = append(errs, errors.New("the demo needs root, because only root may have several Nix stores with the path /nix/store; "+
			"it writes to one temporary directory alone. Run: sudo make demo"))
	}
	for _, program := range []string{"nix", "nix-build", "nix-store", "nix-env"} {
		if _, err := exec.LookPath(program); err != nil {
			errs = append(errs, fmt.Errorf("%s is not installed; on Debian and Ubuntu: apt-get install nix-bin", program))
		}
	}
	if _, err := os.Stat(filepath.Join("config", "samples")); err != nil {
		errs = append(errs, errors.New("run the demo in the root of the repository: make demo"))
		return errors.Join(errs...)
	}
	for _, program := range []string{controlPlaneProgram, agentProgram, pluginProgram, kubectlProgram} {
		if _, err := os.Stat(filepath.Join("bin", program)); err != nil {
			errs = append(errs, fmt.Errorf("bin/%s is not built; run: make build kubectl", program))
		}
	}
	return errors.Join(errs...)
}

// platform is that of this machine, as Nix writes it.
func platform() nfv1.Platform {
	if runtime.GOARCH == "arm64" {
		return nfv1.PlatformAarch64Linux
	}
	return nfv1.PlatformX8664Linux
}
