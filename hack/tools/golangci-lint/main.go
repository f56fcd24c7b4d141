// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

// Command golangci-lint is golangci-lint with the Kubernetes API linter compiled
// in as a module plugin. golangci-lint knows such plugins only when they are
// linked into its binary; this is that binary, pinned by the go.mod beside it.
package main

import (
	"fmt"
	"os"
	"runtime/debug"
	"strings"

	"github.com/golangci/golangci-lint/v2/pkg/commands"
	"github.com/golangci/golangci-lint/v2/pkg/exitcodes"

	// Registers the linter "kubeapilinter".
	_ "sigs.k8s.io/kube-api-linter"
)

// linterModule is the module whose version the binary reports: this program has
// none of its own.
const linterModule = "github.com/golangci/golangci-lint/v2"

func main() {
	if err := commands.Execute(buildInfo()); err != nil {
		fmt.Fprintf(os.Stderr, "golangci-lint: %v\n", err)
		os.Exit(exitcodes.Failure)
	}
}

// buildInfo returns what "golangci-lint version" prints. golangci-lint also checks
// the version against the schema of its configuration.
func buildInfo() commands.BuildInfo {
	info := commands.BuildInfo{Version: "unknown", GoVersion: "unknown", Commit: "unknown", Date: "unknown"}

	build, ok := debug.ReadBuildInfo()
	if !ok {
		return info
	}

	info.GoVersion = build.GoVersion

	for _, module := range build.Deps {
		if module.Path == linterModule {
			info.Version = strings.TrimPrefix(module.Version, "v")
		}
	}

	return info
}
