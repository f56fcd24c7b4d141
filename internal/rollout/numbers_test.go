// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package rollout

import (
	"fmt"
	"testing"

	"k8s.io/apimachinery/pkg/util/intstr"
	"pgregory.net/rapid"
)

func TestRounding(t *testing.T) {
	number := func(n int32) *intstr.IntOrString { return ptrTo(intstr.FromInt32(n)) }
	percent := func(n int) *intstr.IntOrString { return ptrTo(intstr.FromString(fmt.Sprintf("%d%%", n))) }
	tests := []struct {
		value *intstr.IntOrString
		hosts int32
		// what it means as size, as maxUnavailable and as failureThreshold
		size, capacity, threshold int32
	}{
		{nil, 0, 0, 1, 0},
		{nil, 1, 1, 1, 0},
		{nil, 10, 10, 10, 0},
		{number(1), 10, 1, 1, 1},
		{number(3), 10, 3, 3, 3},
		{number(10), 10, 10, 10, 10},
		{number(25), 10, 10, 25, 25}, // more than all: the size is all
		{number(0), 10, 1, 1, 0},
		{percent(0), 10, 1, 1, 0},
		{percent(1), 1, 1, 1, 0},
		{percent(1), 10, 1, 1, 0},
		{percent(1), 100, 1, 1, 1},
		{percent(1), 101, 2, 2, 1},
		{percent(25), 10, 3, 3, 2},
		{percent(50), 3, 2, 2, 1},
		{percent(99), 1, 1, 1, 0},
		{percent(99), 10, 10, 10, 9},
		{percent(99), 100, 99, 99, 99},
		{percent(99), 10000, 9900, 9900, 9900},
		{percent(100), 1, 1, 1, 1},
		{percent(100), 10, 10, 10, 10},
		{percent(100), 2147483647, 2147483647, 2147483647, 2147483647},
		{ptrTo(intstr.FromString("half")), 10, 1, 1, 0}, // the API refuses it; the strictest reading
	}
	for _, tc := range tests {
		t.Run(fmt.Sprintf("%s of %d", tc.value, tc.hosts), func(t *testing.T) {
			got := [3]int32{waveSize(tc.value, tc.hosts), waveCapacity(tc.value, tc.hosts), waveThreshold(tc.value, tc.hosts)}
			if want := [3]int32{tc.size, tc.capacity, tc.threshold}; got != want {
				t.Fatalf("size, maxUnavailable and threshold are %v, want %v", got, want)
			}
		})
	}
}

// TestRoundingIsSafe: a wave takes at least one host and at most all, moves at least one
// at a time, and a percentage below 100 never lets every host fail.
func TestRoundingIsSafe(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Int32Range(1, 10000).Draw(t, "hosts")
		percent := rapid.IntRange(0, 99).Draw(t, "percent")
		v := ptrTo(intstr.FromString(fmt.Sprintf("%d%%", percent)))
		if size := waveSize(v, n); size < 1 || size > n {
			t.Fatalf("a wave of %d of %d hosts", size, n)
		}
		if waveCapacity(v, n) < 1 {
			t.Fatal("a wave that can move nobody")
		}
		if threshold := waveThreshold(v, n); threshold < 0 || threshold >= n {
			t.Fatalf("%d of %d hosts may fail", threshold, n)
		}
	})
}
