//go:build integration

// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package api

import (
	"fmt"
	"slices"
	"strings"
)

func rolloutLimits() []limit {
	return slices.Concat(
		selectorLimits("spec.selector"),
		selectorLimits("spec.strategy.waves[0].selector"),
		[]limit{
			text("spec.release", 1, 253),
			set("spec.hosts", 1, 5000, words("host-")),
			hostName("spec.hosts[0]"),

			oneOf("spec.strategy.type", "AllAtOnce", "Canary", "Staged").onlyRefusing(),
			keyed("spec.strategy.waves", 1, 32, "name", func(i int) any {
				return map[string]any{"name": fmt.Sprintf("wave-%d", i)}
			}).having("spec: {approvedWaves: null}"),
			shaped("spec.strategy.waves[0].name", 1, 63, waveNamePattern, repeat("a"), []string{"wave-1", "0"}, []string{"Canary", "-a", "a-", "a b", "a.b", "a_b"}),
			quantity("spec.strategy.waves[0].size", 1),
			quantity("spec.strategy.waves[0].maxUnavailable", 1),
			between("spec.strategy.waves[0].soakSeconds", 0, 2592000),
			oneOf("spec.strategy.waves[0].approval", "Automatic", "Required"),

			set("spec.approvedWaves", 1, 32, func(i int) any { return fmt.Sprintf("wave-%d", i) }).
				having("spec: {strategy: {waves: [" + waves(32) + "]}}"),
			text("spec.approvedWaves[0]", 1, 63).having("spec: {strategy: {waves: [{name: a}, {name: " + strings.Repeat("a", 63) + "}]}}"),
			quantity("spec.failureThreshold", 0),
			oneOf("spec.onFailure", "Pause", "Revert"),
			between("spec.hostTimeoutSeconds", 10, 604800),
			oneOf("spec.offlinePolicy", "Defer", "Wait"),
			oneOf("spec.olderRelease", "Block", "Allow"),
			oneOf("spec.state", "Running", "Paused", "Cancelled"),
			between("spec.attempt", 1, 1000000),
		},
	)
}

func waves(n int) string {
	names := make([]string, 0, n)
	for i := range n {
		names = append(names, fmt.Sprintf("{name: wave-%d}", i))
	}
	return strings.Join(names, ", ")
}

// quantity is a number of hosts or a percentage.
func quantity(at string, least int) limit {
	name := at[strings.LastIndex(at, ".")+1:]
	message := fmt.Sprintf("%s is a number from %d on, or a percentage from %d%% to 100%%", name, least, least)
	l := limit{at: at, takes: []any{least, 5, 100000, fmt.Sprintf("%d%%", least), "5%", "99%", "100%"}}
	for _, value := range []any{least - 1, -5, 100001, fmt.Sprintf("%d%%", least-1), "101%", "-1%", "01%", "1.5%", "5", "", "%", "half", "5 %", "5%%"} {
		l.refuses = append(l.refuses, refusal{value, message, "cel"})
	}
	l.refuses = append(l.refuses, refusal{"1000%", "Too long: may not be more than 4 bytes", "maxLength"})
	return l
}

func selectorLimits(at string) []limit {
	requirement := map[string]any{"key": "role", "operator": "Exists"}
	labels := func(n int) map[string]any {
		made := make(map[string]any, n)
		for i := range n {
			made[fmt.Sprintf("label-%d", i)] = "x"
		}
		return made
	}
	values := func(at string) limit {
		return shaped(at, 0, 63, labelValuePattern, repeat("a"), []string{"", "Web_1.a-b"}, []string{"-a", "a-", "a b", "a/b", "a,b"})
	}
	return []limit{
		{at: at + ".matchLabels", takes: []any{labels(1), labels(32)}, refuses: []refusal{
			{labels(0), "in body should have at least 1 properties", "minProperties"},
			{labels(33), "Too many: 33: must have at most 32 items", "maxProperties"},
		}},
		values(at + ".matchLabels{role}"),
		list(at+".matchExpressions", 1, 16, same(requirement)),
		shaped(at+".matchExpressions[0].key", 1, 317, labelKeyPattern, func(n int) string {
			if n < 3 {
				return strings.Repeat("a", n)
			}
			name := min(63, n-2)
			return strings.Repeat("a", n-name-1) + "/" + strings.Repeat("a", name)
		}, []string{"role", "nixfleet.io/role", "Role_1.a"}, []string{strings.Repeat("a", 64), "a..b/c", "-a", "a-", "/a", "a/", "a/b/c", "a b", "Upper.case/a"}),
		oneOf(at+".matchExpressions[0].operator", "In", "NotIn", "Exists", "DoesNotExist").onlyRefusing(),
		list(at+".matchExpressions[0].values", 1, 64, same("x")),
		values(at + ".matchExpressions[0].values[0]"),
	}
}

func rolloutStatusLimits() []limit {
	return []limit{
		notEmpty("status"),
		atLeast("status.observedGeneration", -1),
		keyed("status.conditions", 0, 16, "type", condition),
		oneOf("status.phase", "Pending", "Progressing", "Soaking", "AwaitingApproval", "Blocked", "Paused",
			"Reverting", "Cancelling", "Succeeded", "Failed", "Reverted", "Cancelled"),
		text("status.message", 1, 1024),
		text("status.releaseUID", 1, 64),
		atLeast("status.attempt", 0),
		text("status.waveProgress", 1, 32),
		text("status.hostProgress", 1, 32),
		atLeast("status.hosts.total", 0),
		atLeast("status.hosts.assigned", 0),
		atLeast("status.hosts.succeeded", 0),
		atLeast("status.hosts.failed", 0),
		atLeast("status.hosts.deferred", 0),
		atLeast("status.hosts.skipped", 0),
		atLeast("status.hosts.unassigned", 0),
		keyed("status.waves", 1, 32, "name", func(i int) any { return map[string]any{"name": fmt.Sprintf("wave-%d", i)} }),
		text("status.waves[0].name", 1, 63),
		atLeast("status.waves[0].size", 0),
		atLeast("status.waves[0].threshold", 0),
		atLeast("status.waves[0].maxUnavailable", 0),
		atLeast("status.waves[0].assigned", 0),
		atLeast("status.waves[0].inFlight", 0),
		atLeast("status.waves[0].succeeded", 0),
		atLeast("status.waves[0].failed", 0),
		atLeast("status.waves[0].deferred", 0),
		atLeast("status.waves[0].skipped", 0),
		set("status.waves[0].failedHosts", 1, 100, words("host-")),
		hostName("status.waves[0].failedHosts[0]"),
		list("status.failures", 1, 32, same(map[string]any{"host": "full", "reason": "Timeout"})),
		hostName("status.failures[0].host"),
		text("status.failures[0].wave", 1, 63),
		text("status.failures[0].reason", 1, 64),
		text("status.failures[0].message", 1, 512),
	}
}
