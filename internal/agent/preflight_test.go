// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package agent

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/attempt"
	"github.com/nixfleet/nixfleet/internal/nix"
)

// closure writes the files of a system below a root.
func closure(t *testing.T, root string, path nix.StorePath, files map[string]string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(root, path.String()), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		file := filepath.Join(root, path.String(), name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if to, link := strings.CutPrefix(text, "-> "); link {
			if err := os.Symlink(to, file); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestPreflight(t *testing.T) {
	const (
		unit  = "etc/systemd/system/nixfleet-agent.service"
		wants = "etc/systemd/system/multi-user.target.wants/nixfleet-agent.service"
	)
	enabled := func(more map[string]string) map[string]string {
		files := map[string]string{unit: "[Service]", wants: "-> ../nixfleet-agent.service", "init-interface-version": "systemd 2"}
		for name, text := range more {
			files[name] = text
		}
		return files
	}
	was := map[string]string{"init-interface-version": "systemd 2", "switch-inhibitors": `{"dbus": "broker", "gone": "x"}`}
	for name, tc := range map[string]struct {
		is     map[string]string
		reason string
		part   string
	}{
		"nothing in its way":  {is: enabled(nil)},
		"inhibitors agree":    {is: enabled(map[string]string{"switch-inhibitors": `{"dbus": "broker", "new": "y"}`})},
		"inhibitors differ":   {is: enabled(map[string]string{"switch-inhibitors": `{"dbus": "daemon"}`}), reason: nfv1.ReasonUnsupported, part: "it changes dbus"},
		"inhibitors are junk": {is: enabled(map[string]string{"switch-inhibitors": "["}), part: "switch inhibitors"},
		"another init":        {is: enabled(map[string]string{"init-interface-version": "systemd 3"}), reason: nfv1.ReasonUnsupported, part: "systemd 3"},
		"no agent":            {is: map[string]string{"init-interface-version": "systemd 2", "etc/x": ""}, reason: nfv1.ReasonAgentMissing, part: "has no nixfleet-agent"},
		"agent is masked":     {is: map[string]string{unit: "-> /dev/null", wants: "-> ../nixfleet-agent.service"}, reason: nfv1.ReasonAgentMissing, part: "has no nixfleet-agent"},
		"agent not enabled":   {is: map[string]string{unit: "[Service]"}, reason: nfv1.ReasonAgentMissing, part: "not enabled"},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			closure(t, root, oldSystem, was)
			closure(t, root, newSystem, tc.is)
			s := &StoreSource{Root: root, AgentUnit: defaultAgentUnit}
			err := s.Preflight(t.Context(), attempt.System{Path: oldSystem}, attempt.System{Path: newSystem})
			if tc.part == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			var refusal *Refusal
			if err == nil || !strings.Contains(err.Error(), tc.part) || errors.As(err, &refusal) != (tc.reason != "") || refusal != nil && refusal.Reason != tc.reason {
				t.Errorf("got %v, want %s with %q", err, tc.reason, tc.part)
			}
		})
	}
}

// TestPreflightRefusalChangesNothing refuses before there is a plan.
func TestPreflightRefusalChangesNothing(t *testing.T) {
	b := newBody(t)
	b.units = true
	b.preflight = &Refusal{Reason: nfv1.ReasonAgentMissing, Err: errors.New("it has no agent")}
	b.live(t, b.boot)
	b.wantEnd(t, nfv1.AttemptRefused, nfv1.ReasonAgentMissing)
	if numbers, err := attempt.Numbers(b.dir); err != nil || len(numbers) > 0 || strings.Contains(b.story(), "test ") {
		t.Errorf("attempts %v, %v; %s", numbers, err, b.story())
	}
}

func TestOnBoot(t *testing.T) {
	boot := t.TempDir()
	hash := oldSystem.Hash()
	if err := os.MkdirAll(filepath.Join(boot, "EFI/nixos"), 0o755); err != nil {
		t.Fatal(err)
	}
	if onBoot(boot, hash) || onBoot(boot, "") {
		t.Error("found on an empty partition")
	}
	if err := os.WriteFile(filepath.Join(boot, "EFI/nixos", hash+"-linux-6.12-bzImage.efi"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if !onBoot(boot, hash) {
		t.Error("not found")
	}
}

func TestStorePathOf(t *testing.T) {
	for file, want := range map[string]nix.StorePath{
		oldSystem.String() + "/bin/agent": oldSystem, "/usr/bin/agent": "", "/nix/store": "", "/nix/store/x/bin": "",
	} {
		if got := storePathOf(file); got != want {
			t.Errorf("%s: %q, want %q", file, got, want)
		}
	}
}
