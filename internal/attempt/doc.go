// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

// Package attempt keeps on disk what has to be known about one attempt to move a host, for
// the processes that work on it and may each outlive the others: the agent, the helper
// that activates, and the dead man's switch that goes back.
//
// An attempt is a directory, <state directory>/attempts/<number>. In it are a plan, which
// never changes and is all that the dead man's switch needs to know; a decision, made once
// and for all by whoever comes first; and records of what the helper and the roll-back
// did. Every file is complete and durable when its name appears.
//
// Only files live here: what is done with them is the business of internal/agent,
// internal/activation and internal/deadman. Fields of the files are added, never renamed
// or removed, for an old program reads what a new one wrote and the other way round.
package attempt
