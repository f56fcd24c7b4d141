//go:build integration

// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package api

import (
	"fmt"
	"strings"
)

func hostLimits() []limit {
	return []limit{
		oneOf("spec.platform", "x86_64-linux", "aarch64-linux", "x86_64-darwin", "aarch64-darwin"),
		oneOf("spec.lifecycle", "Pending", "Provisioning", "Active", "Maintenance", "Decommissioned"),

		notEmpty("spec.identity"),
		set("spec.identity.publicKeys", 1, 8, func(i int) any { return sshKey(32 + i) }),
		shaped("spec.identity.publicKeys[0]", 32, 2048, sshKeyPattern, sshKey, []string{
			"ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQ== root@web-01",
			"ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTY=",
		}, []string{
			"ssh-dss AAAAB3NzaC1kc3MAAACBAPY8ZOHY2yFSJA6XYC9HRwNHxaehvx5wOJ0rzZdzoSOXxbET",
			"command=\"reboot\" ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ1dJZlVYVXlO0ZzQyqfLkP0XWFQyCyBt0bPDWcU0gWz",
			"-----BEGIN OPENSSH PRIVATE KEY-----AAAA",
			"AAAAC3NzaC1lZDI1NTE5AAAAIJ1dJZlVYVXlO0ZzQyqfLkP0XWFQyCyBt0bPDWcU0gWz",
			sshKey(60) + "\n" + sshKey(60),
		}),

		oneOf("spec.activation.mode", "Switch", "Boot"),
		oneOf("spec.activation.reboot", "Never", "Automatic"),
		oneOf("spec.activation.unprotectedBoot", "Refuse", "Allow"),
		oneOf("spec.activation.drift", "Report", "Correct"),
		oneOf("spec.activation.failedUnits", "RollBack", "Ignore"),
		between("spec.activation.confirmTimeoutSeconds", 10, 3600),
		between("spec.activation.activationTimeoutSeconds", 10, 7200),

		keyed("spec.healthChecks", 1, 16, "name", func(i int) any {
			return map[string]any{"name": fmt.Sprintf("check-%d", i), "type": "tcp", "tcp": map[string]any{"port": 22}}
		}),
		shaped("spec.healthChecks[0].name", 1, 63, checkNamePattern, repeat("a"), []string{"nginx.service", "A_b-C"}, []string{"-a", "a-", "a b", "a/b"}),
		oneOf("spec.healthChecks[0].type", "systemd", "launchd", "http", "tcp").onlyRefusing(),
		between("spec.healthChecks[0].timeoutSeconds", 1, 1800),
		set("spec.healthChecks[0].systemd.units", 1, 32, func(i int) any { return fmt.Sprintf("unit-%d.service", i) }),
		shaped("spec.healthChecks[0].systemd.units[0]", 3, 255, unitPattern, func(n int) string {
			if n < len("a.swap") {
				n = len("a.swap") // No unit's name is shorter.
			}
			return strings.Repeat("a", n-len(".swap")) + ".swap"
		}, []string{"getty@tty1.service", `dev-disk-by\x2duuid.device`, "home.mount", "nginx.socket"},
			[]string{"nginx", "nginx.conf", "--force.service rm", "../x/y.service", "a b.service", "a.service;reboot"}),
		set("spec.healthChecks[1].launchd.labels", 1, 32, words("org.nixos.")),
		shaped("spec.healthChecks[1].launchd.labels[0]", 1, 255, launchdPattern, repeat("a"), []string{"org.nixos.nix-daemon"}, []string{"a b", "a/b", "a;b"}),
		between("spec.healthChecks[2].http.port", 1, 65535),
		shaped("spec.healthChecks[2].http.path", 1, 512, httpPathPattern, func(n int) string { return "/" + strings.Repeat("a", n-1) },
			[]string{"/", "/healthz?full=1"}, []string{"healthz", "http://10.0.0.1/", "/a b", "/a\r\nHost: x", "/a#b"}),
		oneOf("spec.healthChecks[2].http.scheme", "HTTP", "HTTPS"),
		between("spec.healthChecks[2].http.expectedStatus", 100, 599),
		between("spec.healthChecks[3].tcp.port", 1, 65535),

		text("spec.override.id", 1, 64),
		storePath("spec.override.storePath"),
		oneOf("spec.override.clear", "Desired").having("spec: {override: {storePath: null}}"),

		atLeast("spec.desired.revision", 1),
		oneOf("spec.desired.intent", "Deploy", "Revert", "None"),
		storePath("spec.desired.storePath"),
		storePath("spec.desired.previousStorePath"),
		list("spec.desired.previousCaches", 1, 16, same("https://cache.example.org")),
		cacheURL("spec.desired.previousCaches[0]"),
		text("spec.desired.release.name", 1, 253),
		text("spec.desired.release.uid", 1, 64),
		text("spec.desired.rollout.name", 1, 253),
		text("spec.desired.rollout.uid", 1, 64),
		atLeast("spec.desired.attempt", 1),
		text("spec.desired.wave", 1, 63),
		list("spec.desired.caches", 1, 16, same("https://cache.example.org")),
		cacheURL("spec.desired.caches[0]"),
		text("spec.desired.overrideID", 1, 64),
	}
}

// sshKey makes a line of a length that has the form of a public key.
func sshKey(n int) string {
	const begin = "ssh-ed25519 AAAA"
	return begin + strings.Repeat("a", n-len(begin))
}

func repeat(s string) func(int) string {
	return func(n int) string { return strings.Repeat(s, n) }
}

// onlyRefusing is for a field whose values depend on others: a test of its own has them.
func (l limit) onlyRefusing() limit {
	l.takes = nil
	return l
}
