// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package rollout

import (
	"fmt"
	"testing"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

// BenchmarkPlan plans a fleet in the middle of a rollout: half of the hosts are done, a
// tenth is in flight. The floor is one look at every host.
func BenchmarkPlan(b *testing.B) {
	for _, n := range []int{1_000, 3_000, 10_000, 30_000} {
		s, w := midway(n)
		b.Run(fmt.Sprintf("hosts=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Plan(s, w.now)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/host")
		})
		b.Run(fmt.Sprintf("floor/hosts=%d", n), func(b *testing.B) {
			online := 0
			for b.Loop() {
				for _, h := range s.Hosts {
					if isOnline(h) && h.Spec.Desired != nil {
						online++
					}
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/host")
		})
	}
}

func midway(n int) (Snapshot, *world) {
	w := newWorld(hostNames(n)...)
	w.addRelease("a")
	ro := w.addRollout("r", "a", nil)
	w.plan(ro, -1)
	for i, h := range w.hosts {
		switch {
		case i%10 < 5:
			w.complete(h.Name)
		case i%10 == 5:
			w.agent(h)
		default:
			h.Spec.Desired = nil
		}
	}
	ro.Status.Waves[0].Size = int32(n)
	ro.Spec.Strategy = nfv1.RolloutStrategy{Type: nfv1.StrategyAllAtOnce}
	return w.snapshot(ro), w
}
