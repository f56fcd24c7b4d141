// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package agent

import (
	"context"
	"strings"
	"testing"
	"time"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/activation"
	"github.com/nixfleet/nixfleet/internal/bootloader"
	"github.com/nixfleet/nixfleet/internal/nix"
)

func (b *body) Boot(_ context.Context, p nix.StorePath, _ time.Duration, _ string) (activation.Result, error) {
	b.act("boot "+p.Name(), func() {
		// As with systemd-boot: the default is written for a generation of the profile only.
		if !b.bootFails[p] && !b.bootNoop[p] && b.profile.Path == p {
			b.bootDefault = p
		}
	})
	if b.bootFails[p] {
		return activation.Result{ExitCode: 1}, nil
	}
	return activation.Result{}, nil
}

// bootEntry reads the boot default as internal/bootloader does.
func (b *body) bootEntry(p nix.StorePath) bootloader.Finding {
	f := bootloader.Finding{Loader: b.loader, Verdict: bootloader.BootsOther, Message: "it boots " + string(b.bootDefault)}
	switch {
	case b.loader == bootloader.Unknown:
		f.Verdict = bootloader.Unverified
	case p == b.bootDefault:
		f.Verdict = bootloader.Boots
	}
	return f
}

// A full /boot, and a path that the builder of boot entries does not know, end with 0.
func TestABootEntryThatWasNotWrittenIsNoCommit(t *testing.T) {
	tests := map[string]struct {
		set     func(*body)
		outcome nfv1.AttemptOutcome
		runs    nix.StorePath
	}{
		"nothing was written":            {func(*body) {}, nfv1.AttemptRolledBack, oldSystem},
		"an unknown loader fails nobody": {func(b *body) { b.loader = bootloader.Unknown }, nfv1.AttemptSucceeded, newSystem},
		"a leftover of another loader":   {func(b *body) { b.bootDefault = "/nix/store/22222222222222222222222222222222-nixos-system-h-ancient" }, nfv1.AttemptSucceeded, newSystem},
		"it was the default already":     {func(b *body) { b.bootDefault = newSystem }, nfv1.AttemptSucceeded, newSystem},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			b := newBody(t)
			b.bootNoop = map[nix.StorePath]bool{newSystem: true}
			tc.set(b)
			b.live(t, "boot-1")
			if b.last.Attempt == nil || b.last.Attempt.Outcome != tc.outcome || b.running != tc.runs {
				t.Errorf("got %+v and %s runs, want %s and %s", b.last.Attempt, b.running, tc.outcome, tc.runs)
			}
			if tc.outcome == nfv1.AttemptRolledBack && (b.last.Attempt.Reason != nfv1.ReasonCommitFailed || !strings.Contains(b.last.Attempt.Message, "would not boot the system")) {
				t.Errorf("got %+v", b.last.Attempt)
			}
		})
	}
}
