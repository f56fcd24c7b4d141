//go:build e2e

// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package e2e

import (
	"path/filepath"
	"testing"
	"time"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/attempt"
)

// cutConnection lets packets of connections that there are pass, and no others.
const cutConnection = `nft add table inet e2e
nft add chain inet e2e out '{ type filter hook output priority 0; }'
nft add rule inet e2e out oifname host0 ct state new drop`

// noAgent sees that no agent runs, nor comes back until theAgent. Only what lies in
// system.control wins over the units of the system.
const (
	control = "/run/systemd/system.control/nixfleet-agent.service"
	noAgent = `mkdir -p /run/systemd/system.control
ln -sf /dev/null ` + control + `
systemctl daemon-reload
systemctl kill --signal=KILL nixfleet-agent.service
systemctl stop nixfleet-agent.service`
	theAgent = `rm -f ` + control + `
systemctl daemon-reload
systemctl start nixfleet-agent.service`
)

// slack is what a machine with other work may add to the promise: this is about timers,
// not about speed.
const slack = 30 * time.Second

// promise is within which time a host is back by itself, by the plan of its last attempt.
func (h *host) promise(t *testing.T) time.Duration {
	t.Helper()
	journal, err := h.journal()
	if err != nil {
		t.Fatal(err)
	}
	plan, err := attempt.At(filepath.Join(h.root, "var/lib/nixfleet"), journal.Attempts).Plan()
	if err != nil {
		t.Fatal(err)
	}
	return plan.HealthBudget() + plan.ConfirmTimeout() + 10*time.Second
}

// TestNetworkIsLost tries systems from which a host can never be reached again.
func TestNetworkIsLost(t *testing.T) {
	t.Parallel()
	const name = "network"
	h := start(t, name, 13)

	t.Run("the link goes down", func(t *testing.T) {
		h.goesBack(t, with(newSystem(name, "link-down"), func(s *system) { s.After = "ip link set host0 down" }), h.first, nfv1.ReasonConfirmTimeout)
	})
	t.Run("only old connections live on", func(t *testing.T) {
		h.goesBack(t, with(newSystem(name, "firewall"), func(s *system) { s.After = cutConnection }), h.first, nfv1.ReasonConfirmTimeout)
	})
	t.Run("and the agent is dead", func(t *testing.T) {
		bad := h.deploy(t, with(newSystem(name, "dark"), func(s *system) { s.After = "ip link set host0 down\n" + noAgent }))
		h.runsSoon(t, bad)
		took, promise := h.runsSoon(t, h.first), h.promise(t)
		t.Logf("back on the old system %.1f s after the new one ran; health budget + confirm timeout + 10 s are %s", took.Seconds(), promise)
		if took > promise+slack {
			t.Errorf("that is too late")
		}
		if out, err := h.in("systemctl", "is-active", "nixfleet-agent.service"); err == nil {
			t.Errorf("the agent is %s; somebody else should have gone back", out)
		}
		if out, err := h.in("sh", "-euc", theAgent); err != nil {
			t.Fatal(out, err)
		}
		h.ends(t, bad, nfv1.AttemptRolledBack)
		h.is(t, h.first)
	})
}
