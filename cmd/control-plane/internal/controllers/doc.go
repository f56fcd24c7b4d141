// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

// Package controllers runs the Kubernetes controllers without which an API
// server does not behave as people expect: the namespace controller empties
// deleted namespaces, the garbage collector deletes what lost its owner.
//
// NixFleet's own controllers are not here: they are the manager's.
package controllers
