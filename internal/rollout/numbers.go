// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package rollout

import (
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/intstr"
)

func one() *intstr.IntOrString {
	v := intstr.FromInt32(1)
	return &v
}

// waveSize is how many of n candidates a wave takes: all without a size; a percentage
// is rounded up; at least 1 and at most n.
func waveSize(size *intstr.IntOrString, n int32) int32 {
	if size == nil {
		return n
	}
	return min(max(scaled(*size, n, true), 1), n)
}

// waveCapacity is how many hosts may be unavailable at once: no limit, which is all n,
// without maxUnavailable; a percentage of the candidates is rounded up; at least 1.
func waveCapacity(maxUnavailable *intstr.IntOrString, n int32) int32 {
	if maxUnavailable == nil {
		return max(n, 1)
	}
	return max(scaled(*maxUnavailable, n, true), 1)
}

// waveThreshold is how many of size hosts may fail: 0 without a threshold; a percentage
// is rounded down.
func waveThreshold(threshold *intstr.IntOrString, size int32) int32 {
	if threshold == nil {
		return 0
	}
	return max(scaled(*threshold, size, false), 0)
}

// scaled is a number, or a percentage of n. The API server has validated the form; what
// is neither counts as 0, which is the strictest reading of every field that has one.
func scaled(v intstr.IntOrString, n int32, up bool) int32 {
	if v.Type == intstr.Int {
		return v.IntVal
	}
	percent, err := strconv.ParseInt(strings.TrimSuffix(v.StrVal, "%"), 10, 32)
	if err != nil || !strings.HasSuffix(v.StrVal, "%") {
		return 0
	}
	product := percent * int64(n)
	if up {
		product += 99
	}
	return int32(product / 100)
}
