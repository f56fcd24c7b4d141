//go:build integration

// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package api

import (
	"fmt"
	"strings"
)

func releaseLimits() []limit {
	nixKey := func(n int) string { return strings.Repeat("k", n-45) + ":" + strings.Repeat("A", 43) + "=" }
	return []limit{
		notEmpty("spec.source"),
		text("spec.source.flake", 1, 1024),
		text("spec.source.revision", 1, 255),
		keyed("spec.caches", 1, 16, "url", func(i int) any {
			return map[string]any{"url": fmt.Sprintf("https://cache-%d.example.org", i)}
		}),
		cacheURL("spec.caches[0].url"),
		set("spec.caches[0].publicKeys", 1, 16, func(i int) any { return nixKey(46 + i) }),
		shaped("spec.caches[0].publicKeys[0]", 46, 255, publicKeyPattern, nixKey,
			[]string{"cache.example.org-1:sglB1S9VqHHsZ9c4m3mBn3nYRNmmn5JL0kl6rm2aEGQ="},
			[]string{
				"cache.example.org-1:sglB1S9VqHHsZ9c4m3mBn3nYRNmmn5JL0kl6rm2aEGQ",
				"cache.example.org-1-sglB1S9VqHHsZ9c4m3mBn3nYRNmmn5JL0kl6rm2aEGQ=",
				"cache.example.org-1:sglB1S9VqHHsZ9c4m3mBn3nYRNmmn5JL0kl6rm2aEGQ= x:y",
				"cache.example.org-1:" + strings.Repeat("A", 86) + "==", // A secret key.
			}),
		oneOf("spec.verification", "Required", "Skip"),
		releaseHosts(),
		storePath("spec.hosts{full}"),

		notEmpty("status"),
		atLeast("status.observedGeneration", -1),
		keyed("status.conditions", 0, 16, "type", condition),
		atLeast("status.closures.hosts", 0),
		atLeast("status.closures.toplevels", 0),
		atLeast("status.closures.verified", 0),
		atLeast("status.closures.paths", 0),
		atLeast("status.downloadBytes", 0),
		atLeast("status.unpackedBytes", 0),
		list("status.offenders", 1, 20, same(map[string]any{"storePath": "/nix/store/" + digest + "-a", "reason": "MissingPaths"})),
		storePath("status.offenders[0].storePath"),
		text("status.offenders[0].reason", 1, 64),
		hostName("status.offenders[0].host"),
		text("status.offenders[0].message", 1, 512),
	}
}

// releaseHosts is the map of a Release, which takes a whole fleet.
func releaseHosts() limit {
	hosts := func(n int) map[string]any {
		made := make(map[string]any, n)
		for i := range n {
			made[fmt.Sprintf("host-%04d", i)] = fmt.Sprintf("/nix/store/%s-nixos-system-host-%04d-26.05", digest, i)
		}
		return made
	}
	return limit{at: "spec.hosts", takes: []any{hosts(1), hosts(5000)}, refuses: []refusal{
		{hosts(0), "in body should have at least 1 properties", "minProperties"},
		{hosts(5001), "Too many: 5001: must have at most 5000 items", "maxProperties"},
	}}
}
