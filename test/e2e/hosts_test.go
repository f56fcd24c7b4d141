//go:build e2e

// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package e2e

import (
	"strings"
	"testing"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

// with is a system with a change.
func with(s system, change func(*system)) system {
	change(&s)
	return s
}

// TestActivation is what a host goes through in ordinary times.
func TestActivation(t *testing.T) {
	t.Parallel()
	const name = "plain"
	h := start(t, name, 11)
	h.is(t, h.first)

	t.Run("a system that works", func(t *testing.T) {
		h.succeeds(t, with(newSystem(name, "works"), func(s *system) {
			s.Units["app.service"] = app("works", "/usr/bin/sleep 10000")
			s.Units["more.service"] = app("works", "/usr/bin/sleep 20000")
		}))
		for _, unit := range []string{"app.service", "more.service"} {
			if out, err := h.in("systemctl", "is-active", unit); err != nil {
				t.Errorf("%s is %s: %v", unit, out, err)
			}
		}
	})
	good, err := h.running()
	if err != nil {
		t.Fatal(err)
	}
	t.Run("a unit fails", func(t *testing.T) {
		h.goesBack(t, with(newSystem(name, "fails"), func(s *system) {
			s.Units["app.service"] = app("fails", "/usr/bin/false")
		}), good, nfv1.ReasonActivationFailed, nfv1.ReasonHealthCheckFailed)
	})
	t.Run("the activation hangs with the lock held", func(t *testing.T) {
		h.goesBack(t, with(newSystem(name, "hangs"), func(s *system) { s.Before = "sleep 1000" }), good, nfv1.ReasonActivationTimeout)
	})
	t.Run("the agent's unit is gone", func(t *testing.T) {
		path := h.deploy(t, with(newSystem(name, "no-agent"), func(s *system) { s.Agent = 0 }))
		h.ends(t, path, nfv1.AttemptRefused, "AgentMissing")
		h.is(t, good)
	})
	t.Run("its boot entry is not written", func(t *testing.T) {
		h.goesBack(t, with(newSystem(name, "no-entry"), func(s *system) { s.Boot = "exit 0" }), good, nfv1.ReasonCommitFailed)
	})
	t.Run("the activation fails before it has linked anything", func(t *testing.T) {
		h.goesBack(t, with(newSystem(name, "exits"), func(s *system) { s.Before = "exit 3" }), good, nfv1.ReasonActivationFailed)
	})
}

// TestAgentIsReplaced tries what an activation can do to its own agent.
func TestAgentIsReplaced(t *testing.T) {
	t.Parallel()
	const name = "agent"
	h := start(t, name, 12)

	t.Run("by another version", func(t *testing.T) {
		h.succeeds(t, with(newSystem(name, "v2"), func(s *system) { s.Agent = 2 }))
		pid, err := h.in("systemctl", "show", "--property=MainPID", "--value", "nixfleet-agent.service")
		if err != nil {
			t.Fatal(err)
		}
		if out, err := h.in("readlink", "/proc/"+strings.TrimSpace(pid)+"/exe"); err != nil || !strings.Contains(out, "nixfleet-agent-2") {
			t.Errorf("the agent is %q: %v", out, err)
		}
	})
	t.Run("by another configuration", func(t *testing.T) {
		h.succeeds(t, with(newSystem(name, "config"), func(s *system) { s.Agent = 2; s.Config["tags"] = []string{"new"} }))
	})
	t.Run("by death", func(t *testing.T) {
		h.succeeds(t, with(newSystem(name, "killed"), func(s *system) { s.Agent = 2; s.After = "systemctl kill --signal=KILL nixfleet-agent.service; sleep 2" }))
	})
	good, err := h.running()
	if err != nil {
		t.Fatal(err)
	}
	t.Run("by the death of every process that it has", func(t *testing.T) {
		h.goesBack(t, with(newSystem(name, "all-killed"), func(s *system) { s.Agent = 2; s.After = "pkill -KILL nixfleet-agent; sleep 2" }), good)
	})
	t.Run("by a configuration that it does not know", func(t *testing.T) {
		h.goesBack(t, with(newSystem(name, "unknown-key"), func(s *system) { s.Agent = 2; s.Config["fromTheFuture"] = true }), good)
	})
	t.Run("by nothing, without a bus", func(t *testing.T) {
		path := h.deploy(t, with(newSystem(name, "no-bus"), func(s *system) {
			s.Agent = 2
			s.After = "systemctl stop dbus.socket dbus.service"
		}))
		h.ends(t, path, nfv1.AttemptSucceeded)
		h.is(t, path)
	})
}
