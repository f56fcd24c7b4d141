// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package version

import (
	"fmt"
	"runtime"
)

// The linker sets these (see GO_LDFLAGS in the Makefile). They keep their values
// in programs built by hand. Nothing else writes them.
var (
	// Version is what git describe says of the source, such as v0.3.1 or
	// v0.3.1-12-gabc1234-dirty.
	Version = "v0.0.0-dev"
	// Commit is the Git commit of the source.
	Commit = "unknown"
)

// String returns the version in one line, for people:
// "v0.3.1 (commit abc1234, go1.26.0 linux/amd64)".
func String() string {
	return fmt.Sprintf("%s (commit %s, %s %s/%s)", Version, Commit, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
