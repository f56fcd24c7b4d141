// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package simulated

import (
	"fmt"
	"hash/fnv"
	"slices"
	"time"

	"github.com/nixfleet/nixfleet/internal/nix"
)

// Fault is what goes wrong with a system on a host.
type Fault string

// Faults.
const (
	// None lets everything succeed.
	None Fault = ""
	// FetchFails: no cache has it.
	FetchFails Fault = "fetch-fails"
	// FetchPartial: the fetch stops in the middle, and the next try succeeds.
	FetchPartial Fault = "fetch-partial"
	// Untrusted: nobody signed it.
	Untrusted Fault = "untrusted"
	// ActivationFails: its program ends with 1.
	ActivationFails Fault = "activation-fails"
	// ActivationPartial: units fail, and its program ends with 4.
	ActivationPartial Fault = "activation-partial"
	// Hangs: its program does not end in time.
	Hangs Fault = "hangs"
	// Unhealthy: its health checks fail.
	Unhealthy Fault = "unhealthy"
	// Slow: everything takes ten times as long.
	Slow Fault = "slow"
	// Offline: the host cannot reach the control plane while the system runs.
	Offline Fault = "offline"
)

// Faults are all that there are, but None.
func Faults() []Fault {
	return []Fault{FetchFails, FetchPartial, Untrusted, ActivationFails, ActivationPartial, Hangs, Unhealthy, Slow, Offline}
}

// Behavior is how hosts take to systems.
type Behavior struct {
	// Fetch and Activate are how long they take when nothing is wrong.
	Fetch, Activate time.Duration

	// Shares is how many of 100 hosts have each fault with a system.
	Shares map[Fault]int

	// Seed makes other hosts have them.
	Seed string
}

// Validate says what cannot be.
func (b Behavior) Validate() error {
	sum := 0
	for fault, share := range b.Shares {
		if !slices.Contains(Faults(), fault) {
			return fmt.Errorf("there is no fault %q; there are %v", fault, Faults())
		}
		if share < 0 {
			return fmt.Errorf("%d of 100 hosts cannot have fault %s", share, fault)
		}
		sum += share
	}
	if sum > 100 {
		return fmt.Errorf("%d of 100 hosts would have a fault", sum)
	}
	return nil
}

// faultOf is the fault of a host with a system. It is always the same one.
func (b Behavior) faultOf(host string, path nix.StorePath) Fault {
	h := fnv.New32a()
	_, _ = h.Write([]byte(b.Seed + "/" + host + "/" + string(path))) // a hash fails nobody
	draw, sum := int(h.Sum32()%100), 0
	for _, fault := range Faults() {
		if sum += b.Shares[fault]; draw < sum {
			return fault
		}
	}
	return None
}
