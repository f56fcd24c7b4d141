// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package agent

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

func TestMoves(t *testing.T) {
	tests := map[string]struct {
		prepare func(*body)
		outcome nfv1.AttemptOutcome
		reason  string
	}{
		"healthy":             {func(*body) {}, nfv1.AttemptSucceeded, nfv1.ReasonCompleted},
		"already running":     {func(b *body) { b.running, b.profile.Path = newSystem, newSystem }, nfv1.AttemptSucceeded, nfv1.ReasonAlreadyRunning},
		"runs, not committed": {func(b *body) { b.running = newSystem }, nfv1.AttemptSucceeded, nfv1.ReasonCompleted},
		"unhealthy":           {func(b *body) { b.bad[newSystem] = true }, nfv1.AttemptRolledBack, nfv1.ReasonHealthCheckFailed},
		"activation fails":    {func(b *body) { b.exit[newSystem] = 4 }, nfv1.AttemptRolledBack, nfv1.ReasonActivationFailed},
		"boot entry fails":    {func(b *body) { b.bootFails[newSystem] = true }, nfv1.AttemptRolledBack, nfv1.ReasonCommitFailed},
		"untrusted": {func(b *body) {
			b.fetchErr = &Refusal{Reason: nfv1.ReasonUntrustedSignature, Err: errors.New("no trusted signature")}
		}, nfv1.AttemptRefused, nfv1.ReasonUntrustedSignature},
		"cache down":       {func(b *body) { b.fetchErr = errors.New("connection refused") }, nfv1.AttemptFailed, nfv1.ReasonFetchFailed},
		"cannot report":    {func(b *body) { b.confirmErr = context.DeadlineExceeded }, nfv1.AttemptRolledBack, nfv1.ReasonConfirmTimeout},
		"could not before": {func(b *body) { b.confirmErr, b.reachable = context.DeadlineExceeded, false }, nfv1.AttemptSucceeded, nfv1.ReasonCompleted},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			b := newBody(t)
			tc.prepare(b)
			b.live(t, "boot-1")
			b.wantEnd(t, tc.outcome, tc.reason)
			actions := len(b.actions)
			b.live(t, "boot-1")
			if len(b.actions) != actions {
				t.Fatalf("the same revision is carried out twice: %v", b.actions[actions:])
			}
			for _, kind := range []string{nfv1.ConditionReconciling} {
				if meta.IsStatusConditionTrue(b.last.Conditions, kind) {
					t.Fatalf("%s stays True at the end", kind)
				}
			}
			if ready := meta.IsStatusConditionTrue(b.last.Conditions, nfv1.ConditionReady); ready != (tc.outcome == nfv1.AttemptSucceeded) {
				t.Fatalf("Ready is %v after %s", ready, tc.outcome)
			}
		})
	}
}

func TestJournalCannotBeWritten(t *testing.T) {
	b := newBody(t)
	b.saveErr = errors.New("no space left on device")
	b.live(t, "boot-1")
	if b.running != oldSystem || b.profile.Path != oldSystem {
		t.Fatalf("the host was changed without a journal: %v", b.actions)
	}
	if c := meta.FindStatusCondition(b.last.Conditions, nfv1.ConditionStalled); c == nil || c.Message != "no space left on device" {
		t.Fatalf("the condition does not say why: %+v", c)
	}
}

func TestTruncatedJournalIsPutAside(t *testing.T) {
	b := newBody(t)
	b.live(t, "boot-1")
	whole, err := os.ReadFile(filepath.Join(b.dir, journalName))
	if err != nil {
		t.Fatal(err)
	}
	for n := range len(whole) - 1 {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, journalName), whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		f := NewJournalFile(dir, time.Now)
		_, err := f.Load()
		var corruptErr *CorruptJournalError
		if !errors.As(err, &corruptErr) {
			t.Fatalf("cut to %d bytes: error %v", n, err)
		}
		if kept, err := os.ReadFile(corruptErr.Kept); err != nil || string(kept) != string(whole[:n]) {
			t.Fatalf("cut to %d bytes: what was there is not kept: %v", n, err)
		}
		if j, err := f.Load(); err != nil || j.Last != nil {
			t.Fatalf("cut to %d bytes: the next start: %v", n, err)
		}
	}
}

func TestDecide(t *testing.T) {
	done := Journal{HostUID: "uid", ObservedRevision: 5, Last: &nfv1.HostAttempt{Revision: 5}}
	tests := map[string]struct {
		j      Journal
		mutate func(*nfv1.Host)
		want   order
	}{
		"nothing asked":                  {done, func(h *nfv1.Host) { h.Spec.Desired = nil }, orderNothing},
		"done":                           {done, func(h *nfv1.Host) { h.Spec.Desired.Revision = 5 }, orderNothing},
		"higher":                         {done, func(h *nfv1.Host) { h.Spec.Desired.Revision = 6 }, orderMove},
		"lower, from a restored backup":  {done, func(h *nfv1.Host) { h.Spec.Desired.Revision = 4 }, orderNothing},
		"lower, of another Host":         {done, func(h *nfv1.Host) { h.UID, h.Spec.Desired.Revision = "other", 1 }, orderMove},
		"taken up and not ended":         {Journal{HostUID: "uid", ObservedRevision: 5}, func(h *nfv1.Host) { h.Spec.Desired.Revision = 5 }, orderMove},
		"withdrawn":                      {done, func(h *nfv1.Host) { h.Spec.Desired.Revision, h.Spec.Desired.Intent = 6, nfv1.IntentNone }, orderAcknowledge},
		"maintenance":                    {done, func(h *nfv1.Host) { h.Spec.Desired.Revision, h.Spec.Lifecycle = 6, nfv1.LifecycleMaintenance }, orderNothing},
		"revert is an order like others": {done, func(h *nfv1.Host) { h.Spec.Desired.Revision, h.Spec.Desired.Intent = 6, nfv1.IntentRevert }, orderMove},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			h := order1()
			tc.mutate(h)
			if got := decide(tc.j, h); got != tc.want {
				t.Fatalf("decided %d, want %d", got, tc.want)
			}
		})
	}
}

func TestConfig(t *testing.T) {
	const good = "server: https://fleet.example.org:8443\ncaFile: /ca.pem\nhostName: web-01\ntrustedPublicKeys: [\"k-1:sglB1S9VqHHsZ9c4m3mBn3nYRNmmn5JL0kl6rm2aEGQ=\"]\n"
	if _, err := parseConfig([]byte(good), func(*Config) {}); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"unknown key":     good + "trustedPublicKey: x\n",
		"no trusted keys": "server: https://a:1\ncaFile: /ca.pem\nhostName: web-01\n",
		"plain http":      "server: http://a:1\ncaFile: /ca.pem\nhostName: web-01\ntrustedPublicKeys: [\"k-1:sglB1S9VqHHsZ9c4m3mBn3nYRNmmn5JL0kl6rm2aEGQ=\"]\n",
		"bad name":        good + "namespace: A B\n",
	} {
		if _, err := parseConfig([]byte(text), func(*Config) {}); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}
