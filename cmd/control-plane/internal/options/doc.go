// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

// Package options holds what a user may set, with its defaults, its flags and
// the checks that are possible before anything is touched.
package options
