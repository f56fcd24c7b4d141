//go:build e2e

// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package e2e

import (
	"testing"
	"time"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

// cutConnection lets packets of connections that there are pass, and no others.
const cutConnection = `nft add table inet e2e
nft add chain inet e2e out '{ type filter hook output priority 0; }'
nft add rule inet e2e out oifname host0 ct state new drop`

// noAgent makes sure that nobody of NixFleet's agent runs, nor comes back.
const noAgent = `systemctl mask --runtime nixfleet-agent.service
systemctl kill --signal=KILL nixfleet-agent.service || true`

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
		h.runsSoon(t, bad, patience)
		// The longest check of 5 s and 10 s more, the time to confirm, and 10 s.
		const promise = (5+10)*time.Second + confirmSeconds*time.Second + 10*time.Second
		took := h.runsSoon(t, h.first, patience)
		t.Logf("back on the old system %.1f s after the new one ran; health budget + confirm timeout + 10 s are %s", took.Seconds(), promise)
		if out, err := h.in("rm", "-f", "/run/systemd/system/nixfleet-agent.service"); err != nil {
			t.Fatal(out, err)
		}
		for _, args := range [][]string{{"systemctl", "daemon-reload"}, {"systemctl", "start", "nixfleet-agent.service"}} {
			if out, err := h.in(args...); err != nil {
				t.Fatal(out, err)
			}
		}
		h.ends(t, bad, nfv1.AttemptRolledBack)
		h.is(t, h.first)
	})
}
