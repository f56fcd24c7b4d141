// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

// Package scale measures programs with large fleets, on a real API server. It has
// benchmarks and no tests: nothing here fails because a machine is slow. What one run
// measures, and how to repeat it, is in docs/reference/performance.md.
package scale
