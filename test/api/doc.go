// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

// Package api tests what a user of the API meets: each validation rule, default and
// bound of api/v1alpha1, the admission policies and RBAC, and the manifests in config,
// against a real API server. Every rule is seen to accept and to refuse, with the
// message that the user reads.
//
// A new field with a rule fails TestEveryRuleIsTested until it has a test here. What
// controllers do with valid objects is tested beside them.
package api
