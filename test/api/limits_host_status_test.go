//go:build integration

// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package api

import "slices"

func hostStatusLimits() []limit {
	return slices.Concat(
		systemLimits("status.running"), systemLimits("status.booted"), systemLimits("status.profile"),
		attemptLimits("status.attempt"), attemptLimits("status.history[0]"),
		[]limit{
			notEmpty("status"),
			atLeast("status.observedGeneration", -1),
			atLeast("status.observedRevision", 0),
			oneOf("status.phase", phases...),
			keyed("status.conditions", 0, 16, "type", condition),

			atLeast("status.fetch.pathsDone", 0),
			atLeast("status.fetch.pathsTotal", 0),
			atLeast("status.fetch.bytesDone", 0),
			atLeast("status.fetch.bytesTotal", 0),

			list("status.history", 1, 10, same(map[string]any{"revision": 1, "storePath": "/nix/store/" + digest + "-a"})),

			list("status.healthChecks", 1, 64, same(map[string]any{"name": "web", "state": "Healthy"})),
			text("status.healthChecks[0].name", 1, 63),
			oneOf("status.healthChecks[0].state", "Healthy", "Unhealthy", "Unknown"),
			text("status.healthChecks[0].message", 1, 256),
			atLeast("status.healthChecks[0].revision", 0),
			storePath("status.healthChecks[0].storePath"),

			text("status.nodeInfo.agentVersion", 1, 128),
			text("status.nodeInfo.nixVersion", 1, 128),
			text("status.nodeInfo.kernelVersion", 1, 128),
			text("status.nodeInfo.bootID", 1, 64),
			text("status.nodeInfo.bootLoader", 1, 64),
			oneOf("status.nodeInfo.bootProtection", "OneShot", "None"),
			set("status.nodeInfo.tags", 1, 32, words("tag-")),
			text("status.nodeInfo.tags[0]", 1, 63),
		},
	)
}

var phases = []string{"Idle", "Fetching", "Activating", "Verifying", "Confirming", "Committing", "AwaitingReboot", "RollingBack"}

func systemLimits(at string) []limit {
	return []limit{
		storePath(at + ".storePath"),
		text(at+".specialisation", 1, 255),
		atLeast(at+".generation", 1),
		text(at+".label", 1, 255),
		text(at+".configurationRevision", 1, 255),
	}
}

func attemptLimits(at string) []limit {
	return []limit{
		atLeast(at+".revision", 1),
		storePath(at + ".storePath"),
		text(at+".rolloutUID", 1, 64),
		oneOf(at+".outcome", "Succeeded", "RolledBack", "Failed", "Refused"),
		text(at+".reason", 1, 64),
		text(at+".message", 1, 512),
		list(at+".phases", 1, 8, same(map[string]any{"phase": "Fetching"})),
		oneOf(at+".phases[0].phase", phases...),
		atLeast(at+".phases[0].seconds", 0),
	}
}

func condition(i int) any {
	return map[string]any{
		"type": words("Type")(i), "status": "True", "reason": "Test", "message": "",
		"lastTransitionTime": "2026-11-24T00:00:00Z",
	}
}
