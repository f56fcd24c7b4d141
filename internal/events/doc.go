// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

// Package events is the vocabulary of the events that the manager records.
//
// table.go declares every reason with the kind of object it is recorded on, what it means
// and what to do; docs/reference/events.md is generated from it.
//
// What may not live here: the decision to record something. Controllers compare what is
// stored with what they are about to store, and record what differs once it is stored.
package events
