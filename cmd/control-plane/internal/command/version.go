// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package command

import (
	"fmt"
	"runtime/debug"
	"strings"

	"github.com/nixfleet/nixfleet/internal/version"
)

// modules are those whose versions matter to an operator.
var modules = []struct{ path, name string }{
	{"k8s.io/kubernetes", "Kubernetes"},
	{"go.etcd.io/etcd/server/v3", "etcd"},
}

// versions is what --version prints.
func versions() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		info = &debug.BuildInfo{}
	}
	return describe(version.String(), info)
}

func describe(own string, info *debug.BuildInfo) string {
	var parts []string
	for _, module := range modules {
		for _, dep := range info.Deps {
			if dep.Path == module.path {
				parts = append(parts, fmt.Sprintf("%s %s", module.name, dep.Version))
			}
		}
	}
	if len(parts) == 0 {
		return own
	}
	return fmt.Sprintf("%s, with %s", own, strings.Join(parts, ", "))
}
