//go:build integration

// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package api

import (
	"fmt"
	"strings"
)

const (
	immutableRelease = "a Release is immutable: create another one under a new name"

	noTargets     = "a rollout needs targets: set selector, hosts or both; selector: {} means every host of the namespace"
	stagedWaves   = "waves is set if and only if type is Staged"
	lastWave      = "the last wave has neither selector nor size: it takes every host that is left"
	labelKey      = "a key of matchLabels is not the key of a label, such as role or example.org/role"
	staysOver     = "a cancelled rollout stays cancelled: create another Rollout"
	attemptGrows  = "attempt only grows: raise it to go on after failures"
	valuesForIn   = "values is set if and only if operator is In or NotIn"
	threeWaves    = "{strategy: {type: Staged, waves: [{name: a, size: 1}, {name: b, soakSeconds: 5}, {name: rest}]}}"
	waveWithNames = "{strategy: {type: Staged, waves: [%s]}}"
)

func releaseRules() []rule {
	const other = "/nix/store/" + digest + "-b"
	return []rule{
		{name: "no change", change: "{verification: Required}"},
		{name: "a host is added", change: "{hosts: {web-02: " + other + "}}", refused: immutableRelease},
		{name: "a host gets another closure", change: "{hosts: {web-01: " + other + "}}", refused: immutableRelease},
		{name: "a host is removed", spec: "{hosts: {web-02: " + other + "}}", change: "{hosts: {web-02: null}}", refused: immutableRelease},
		{name: "a cache is replaced", change: "{caches: [{url: 'https://other.example.org'}]}", refused: immutableRelease},
		{name: "a key is added", change: "{caches: [{url: 'https://cache.example.org', publicKeys: ['a:sglB1S9VqHHsZ9c4m3mBn3nYRNmmn5JL0kl6rm2aEGQ=']}]}",
			refused: immutableRelease},
		{name: "caches change their order", spec: "{caches: [{url: 'https://a'}, {url: 'https://b'}]}",
			change: "{caches: [{url: 'https://b'}, {url: 'https://a'}]}", refused: immutableRelease},
		{name: "verification is switched off", change: "{verification: Skip}", refused: immutableRelease},
		{name: "a source is added", change: "{source: {revision: a}}", refused: immutableRelease},
		{name: "a source changes", spec: "{source: {revision: a}}", change: "{source: {revision: b}}", refused: immutableRelease},
		{name: "a source is removed", spec: "{source: {revision: a}}", change: "{source: null}", refused: immutableRelease},
	}
}

func rolloutRules() []rule {
	staged := func(waves string) string { return fmt.Sprintf(waveWithNames, waves) }
	expression := func(e string) string { return "{selector: {matchExpressions: [" + e + "]}}" }
	all := []rule{
		{name: "hosts alone", spec: "{selector: null, hosts: [web-01]}"},
		{name: "selector and hosts", spec: "{hosts: [web-01]}"},
		{name: "no targets", spec: "{selector: null}", refused: noTargets},

		{name: "staged", spec: threeWaves},
		{name: "staged without waves", spec: "{strategy: {type: Staged}}", refused: stagedWaves, at: "spec.strategy"},
		{name: "canary with waves", spec: "{strategy: {type: Canary, waves: [{name: a}]}}", refused: stagedWaves, at: "spec.strategy"},
		{name: "waves without a type", spec: "{strategy: {waves: [{name: a}]}}", refused: stagedWaves, at: "spec.strategy"},
		{name: "canary", spec: "{strategy: {type: Canary}}"},
		{name: "all at once", spec: "{strategy: {type: AllAtOnce}}"},
		{name: "one wave", spec: staged("{name: a}")},
		{name: "the last wave with a selector", spec: staged("{name: a}, {name: b, selector: {matchLabels: {a: b}}}"), refused: lastWave, at: "spec.strategy.waves"},
		{name: "the last wave with an empty selector", spec: staged("{name: a}, {name: b, selector: {}}"), refused: lastWave, at: "spec.strategy.waves"},
		{name: "the last wave with a size", spec: staged("{name: a}, {name: b, size: 100%}"), refused: lastWave, at: "spec.strategy.waves"},
		{name: "the only wave with a size", spec: staged("{name: a, size: 1}"), refused: lastWave, at: "spec.strategy.waves"},

		{name: "approved in advance", spec: "{approvedWaves: [rest], strategy: {type: Staged, waves: [{name: rest, approval: Required}]}}"},
		{name: "approval of an unknown wave", spec: threeWaves, change: "{approvedWaves: [a, canary, typo]}", refused: "approvedWaves (a, canary, typo) names a wave that strategy.waves does not have"},
		{name: "approval without waves", change: "{approvedWaves: [a]}", refused: "approvedWaves (a) names a wave that strategy.waves does not have"},
		{name: "one after the other is approved", spec: threeWaves, change: "{approvedWaves: [a, b]}"},
		{name: "an approval is withdrawn", spec: "{approvedWaves: [a], strategy: {type: Staged, waves: [{name: a}]}}", change: "{approvedWaves: null}"},

		{name: "In with values", spec: expression("{key: a, operator: In, values: [b]}")},
		{name: "NotIn with values", spec: expression("{key: a, operator: NotIn, values: [b]}")},
		{name: "Exists without values", spec: expression("{key: a, operator: Exists}")},
		{name: "DoesNotExist without values", spec: expression("{key: a, operator: DoesNotExist}")},
	}
	for _, e := range []string{"operator: In", "operator: NotIn", "operator: Exists, values: [b]", "operator: DoesNotExist, values: [b]"} {
		all = append(all, rule{name: e, spec: expression("{key: a, " + e + "}"), refused: valuesForIn, at: "spec.selector.matchExpressions[0]"})
	}
	for key, refused := range map[string]string{
		"role": "", "example.org/role": "", "Role_1.a": "", strings.Repeat("a", 63): "", strings.Repeat("a", 64): labelKey,
		"-a": labelKey, "a/b/c": labelKey, "a b": labelKey, "/a": labelKey, "a..b/c": labelKey, "Example/a": labelKey, "": labelKey,
	} {
		all = append(all, rule{name: "label " + key, spec: "{selector: {matchLabels: {'" + key + "': b}}}", refused: refused, at: "spec.selector"})
	}
	return append(all, rolloutMoves()...)
}

// rolloutMoves are changes of Rollouts that exist.
func rolloutMoves() []rule {
	immutable := func(field string) string { return field + " is immutable: create another Rollout" }
	return []rule{
		{name: "pause", change: "{state: Paused}"},
		{name: "resume", spec: "{state: Paused}", change: "{state: Running}"},
		{name: "cancel", change: "{state: Cancelled}"},
		{name: "cancel while paused", spec: "{state: Paused}", change: "{state: Cancelled}"},
		{name: "run again after cancelling", spec: "{state: Cancelled}", change: "{state: Running}", refused: staysOver},
		{name: "pause after cancelling", spec: "{state: Cancelled}", change: "{state: Paused}", refused: staysOver},
		{name: "leave the state out after cancelling", spec: "{state: Cancelled}", change: "{state: null}", refused: staysOver},
		{name: "raise the attempt", change: "{attempt: 2}"},
		{name: "raise the attempt by more", spec: "{attempt: 2}", change: "{attempt: 7}"},
		{name: "lower the attempt", spec: "{attempt: 3}", change: "{attempt: 2}", refused: attemptGrows},
		{name: "leave the attempt out", spec: "{attempt: 3}", change: "{attempt: null}", refused: attemptGrows},
		{name: "raise the threshold", change: "{failureThreshold: 3}"},
		{name: "lower the threshold", spec: "{failureThreshold: 3}", change: "{failureThreshold: 10%}"},

		{name: "another release", change: "{release: b}", refused: immutable("release")},
		{name: "another selector", change: "{selector: {matchLabels: {role: web}}}", refused: immutable("selector")},
		{name: "no selector", spec: "{hosts: [a]}", change: "{selector: null}", refused: immutable("selector")},
		{name: "a selector", spec: "{selector: null, hosts: [a]}", change: "{selector: {}}", refused: immutable("selector")},
		{name: "other hosts", spec: "{hosts: [a]}", change: "{hosts: [b]}", refused: immutable("hosts")},
		{name: "more hosts", spec: "{hosts: [a]}", change: "{hosts: [a, b]}", refused: immutable("hosts")},
		{name: "hosts", change: "{hosts: [a]}", refused: immutable("hosts")},
		{name: "no hosts", spec: "{hosts: [a]}", change: "{hosts: null}", refused: immutable("hosts")},
		{name: "hosts in another order are the same hosts", spec: "{hosts: [a, b]}", change: "{hosts: [b, a]}"},
		{name: "another strategy", change: "{strategy: {type: Canary}}", refused: immutable("strategy")},
		{name: "a wave is added", spec: threeWaves, change: fmt.Sprintf(waveWithNames, "{name: a, size: 1}, {name: b, soakSeconds: 5}, {name: c}, {name: rest}"),
			refused: immutable("strategy")},
		{name: "a wave changes", spec: threeWaves, change: fmt.Sprintf(waveWithNames, "{name: a, size: 2}, {name: b, soakSeconds: 5}, {name: rest}"),
			refused: immutable("strategy")},
		{name: "waves change their order", spec: threeWaves, change: fmt.Sprintf(waveWithNames, "{name: b, soakSeconds: 5}, {name: a, size: 1}, {name: rest}"),
			refused: immutable("strategy")},
		{name: "the same waves", spec: threeWaves, change: threeWaves},
		{name: "onFailure", change: "{onFailure: Revert}", refused: immutable("onFailure")},
		{name: "hostTimeoutSeconds", change: "{hostTimeoutSeconds: 60}", refused: immutable("hostTimeoutSeconds")},
		{name: "offlinePolicy", change: "{offlinePolicy: Wait}", refused: immutable("offlinePolicy")},
		{name: "olderRelease", change: "{olderRelease: Allow}", refused: immutable("olderRelease")},
	}
}
