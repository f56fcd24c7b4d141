// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

// Package host is the controller of Hosts. It makes the Lease that a host's agent
// renews, judges by it whether the host is online, and warns when a key is pinned by
// two Hosts or cannot be read. For Hosts without an agent (Pending, Decommissioned) it
// also says that there is nothing to wait for.
//
// The judgement is the pure function online; everything else reads or writes. Whether a
// Lease moves is seen by this process's clock: the time that a host writes into it may
// be wrong, and is compared for equality only.
//
// What may not live here: anything that writes a Host's spec, and anything that the
// agent reports about itself.
package host
