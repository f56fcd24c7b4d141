// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

// Package testenv gives tests a real Kubernetes API server with everything that
// NixFleet installs in one: custom resources, admission policies and RBAC, each in
// effect when the test begins.
//
// A package starts one environment for all its tests: with Run from TestMain, or with
// Start from BeforeSuite. There is no garbage collector and no namespace controller, so
// owned objects and namespaces stay; each test takes a fresh namespace.
//
// Only what more than one package's integration tests need lives here. Nothing in a
// program may import it.
package testenv
