// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package agent

import (
	"encoding/json"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

// FuzzJournal reads arbitrary bytes as a journal. What is accepted survives a round trip
// and leads to a decision.
func FuzzJournal(f *testing.F) {
	f.Add([]byte(`{}`))
	f.Add([]byte(`{"hostUID":"u","observedRevision":3,"newer":{"field":1},"open":{"revision":3,"storePath":"` + string(newSystem) +
		`","step":"Activating","previous":"` + string(oldSystem) + `","timeout":600000000000}}`))
	f.Add([]byte(`{"open":{"step":"Nowhere","storePath":"/etc/passwd"}}`))
	f.Add([]byte(`{"open":null,"history":[{}],"last":{"revision":-1}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		j, err := decodeJournal(data)
		if err != nil {
			return
		}
		again, err := json.Marshal(j)
		if err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		k, err := decodeJournal(again)
		if err != nil {
			t.Fatalf("what was written cannot be read: %v", err)
		}
		third, err := json.Marshal(k)
		if err != nil || string(again) != string(third) {
			t.Fatalf("it changed: %v\n%s", err, cmp.Diff(string(again), string(third)))
		}
		if o := k.Open; o != nil {
			recoverFrom(o, facts{bootID: "boot", running: oldSystem})
		}
		decide(k, order1())
	})
}

// FuzzConfig reads arbitrary bytes as a configuration. What is accepted has all that the
// agent relies on.
func FuzzConfig(f *testing.F) {
	const key = "k-1:sglB1S9VqHHsZ9c4m3mBn3nYRNmmn5JL0kl6rm2aEGQ="
	f.Add([]byte("server: https://fleet.example.org:8443\ncaFile: /ca.pem\nhostName: web-01\ntrustedPublicKeys: [\"" + key + "\"]\n"))
	f.Add([]byte(`{"server":"https://a","caFile":"/c","hostName":"h","trustedPublicKeys":["` + key + `"],"tags":["a","a"],"root":"r"}`))
	f.Add([]byte("server: [1]\n"))
	f.Add([]byte("trustedPublicKey: x\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := parseConfig(data, func(*Config) {})
		if err != nil {
			return
		}
		if len(c.TrustedPublicKeys) == 0 || c.CAFile == "" || c.HeartbeatSeconds < 1 || c.Platform == "" {
			t.Errorf("accepted %+v", c)
		}
		for _, p := range []string{c.Root, c.StateDir, c.IdentityKeyFile, c.CAFile} {
			if !filepath.IsAbs(p) {
				t.Errorf("accepted the path %q", p)
			}
		}
	})
}

// TestOlderAgentReadsNewerJournal ignores what it does not know.
func TestOlderAgentReadsNewerJournal(t *testing.T) {
	j, err := decodeJournal([]byte(`{"hostUID":"u","observedRevision":3,"deadMan":{"armed":true},"last":{"revision":3,"outcome":"Succeeded","loader":"x"}}`))
	if err != nil || j.HostUID != "u" || j.Last == nil || j.Last.Outcome != nfv1.AttemptSucceeded {
		t.Errorf("read %+v, %v", j, err)
	}
}

// TestStrangeOrderLeavesTheJournalWhole kills the agent right after it has taken up an order
// that names no system: the next one refuses it, and has forgotten nothing.
func TestStrangeOrderLeavesTheJournalWhole(t *testing.T) {
	b := newBody(t)
	b.live(t, "boot-1")
	b.wantEnd(t, nfv1.AttemptSucceeded, nfv1.ReasonCompleted)
	m := b.start(t, "boot-1")
	m.host.Spec.Desired.Revision, m.host.Spec.Desired.StorePath = 2, "/nix/store/../../etc"
	if err := m.begin(m.host); err != nil {
		t.Fatal(err)
	}
	j, err := NewJournalFile(b.dir, nil).Read()
	if err != nil || j.Good != newSystem || j.Open == nil || j.Open.StorePath != "/nix/store/../../etc" {
		t.Fatalf("journal %+v, %v", j, err)
	}
	// Later steps are for systems alone.
	j.Open.Step = nfv1.HostPhaseActivating
	data, err := json.Marshal(j)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := decodeJournal(data); err == nil {
		t.Error("it would be activated")
	}
}
