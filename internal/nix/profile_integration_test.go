// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

//go:build integration

package nix_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nixfleet/nixfleet/internal/nix"
	"github.com/nixfleet/nixfleet/internal/nix/nixtest"
)

func TestProfile(t *testing.T) {
	w := nixtest.New(t)
	root := w.HostRoot()
	one := w.BuildSystem(nixtest.Spec{Version: "1"})
	two := w.BuildSystem(nixtest.Spec{Version: "2"})
	three := w.BuildSystem(nixtest.Spec{Version: "3"})
	for _, path := range []nix.StorePath{one, two, three} {
		w.CopyToHost(root, path)
	}
	p := nix.NewProfile(root, w.Options()...)
	ctx := t.Context()

	if _, _, err := p.Current(ctx); !errors.Is(err, nix.ErrNoProfile) {
		t.Fatalf("Current without a profile: %v, want ErrNoProfile", err)
	}
	none := state(t, p)
	set(t, p, one)
	requireState(t, p, nix.ProfileState{Path: one, Generation: 1, Newest: 1})
	restore(t, p, none)
	requireState(t, p, nix.ProfileState{})

	set(t, p, one)
	set(t, p, one) // No new generation.
	requireState(t, p, nix.ProfileState{Path: one, Generation: 1, Newest: 1})
	set(t, p, two)
	before := state(t, p)

	t.Run("by number", func(t *testing.T) {
		set(t, p, three)
		requireState(t, p, nix.ProfileState{Path: three, Generation: 3, Newest: 3})
		restore(t, p, before)
		restore(t, p, before)
		requireState(t, p, nix.ProfileState{Path: two, Generation: 2, Newest: 2})
	})
	t.Run("not the newest before", func(t *testing.T) {
		restore(t, p, nix.ProfileState{Path: one, Generation: 1, Newest: 2})
		older := state(t, p)
		set(t, p, three)
		restore(t, p, older)
		requireState(t, p, nix.ProfileState{Path: one, Generation: 1, Newest: 2})
		restore(t, p, before)
		requireState(t, p, before)
	})
	t.Run("by path when the number is gone", func(t *testing.T) {
		set(t, p, three)
		if err := os.Remove(filepath.Join(root, "nix/var/nix/profiles/system-2-link")); err != nil {
			t.Fatal(err)
		}
		restore(t, p, before)
		requireState(t, p, nix.ProfileState{Path: two, Generation: 4, Newest: 4})
	})
	t.Run("a system that is not in the store", func(t *testing.T) {
		missing := nix.StorePath("/nix/store/0c0mmgsdhjxf8x4sjzzqvxw1hxsyqbnd-nixos-system-none")
		if err := p.Set(ctx, missing); err == nil {
			t.Error("set to a missing system")
		}
		requireState(t, p, nix.ProfileState{Path: two, Generation: 4, Newest: 4})
	})
	t.Run("the profile is a root", func(t *testing.T) {
		w.CollectGarbage(root)
		requireValid(t, nix.NewStore(root, w.Options()...), map[nix.StorePath]bool{two: true, three: false})
	})
}

func state(t *testing.T, p nix.Profile) nix.ProfileState {
	t.Helper()
	s, err := p.State(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func set(t *testing.T, p nix.Profile, path nix.StorePath) {
	t.Helper()
	if err := p.Set(t.Context(), path); err != nil {
		t.Fatal(err)
	}
}

func restore(t *testing.T, p nix.Profile, s nix.ProfileState) {
	t.Helper()
	if err := p.Restore(t.Context(), s); err != nil {
		t.Fatal(err)
	}
}

func requireState(t *testing.T, p nix.Profile, want nix.ProfileState) {
	t.Helper()
	if diff := cmp.Diff(want, state(t, p)); diff != "" {
		t.Fatalf("state of the profile (-want +got):\n%s", diff)
	}
}

// TestClosureOfARealSystem reads back what the system was built with.
func TestClosureOfARealSystem(t *testing.T) {
	w := nixtest.New(t)
	root := w.HostRoot()
	path := w.BuildSystem(nixtest.Spec{
		Host: "web-01", Version: "7", InitInterface: "systemd 3",
		HealthChecks: `{"checks":[{"name":"db","type":"exec","exec":{"argv":["@check@"]}}]}`,
		Scripts:      map[string]string{"check": "exit 0"},
	})
	w.CopyToHost(root, path)
	c := nix.OpenClosure(root, path)

	identity, err := c.HostIdentity()
	if err != nil || identity != (nix.HostIdentity{Name: "web-01", Platform: "x86_64-linux"}) {
		t.Errorf("HostIdentity: %+v, %v", identity, err)
	}
	for name, read := range map[string]func() (string, error){
		"web-01-7": c.Label, "systemd 3": c.InitInterfaceVersion, "x86_64-linux": c.Platform,
	} {
		if got, err := read(); err != nil || got != name {
			t.Errorf("got %q, %v; want %q", got, err, name)
		}
	}
	if has, err := c.HasSwitchToConfiguration(); err != nil || !has {
		t.Errorf("HasSwitchToConfiguration: %v, %v", has, err)
	}
	checks, err := c.HealthChecks()
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(checks), `"argv":["`)
	program, _, _ := strings.Cut(after, `"`)
	resolved, err := nix.ResolveInStore(root, program)
	if err != nil || resolved != filepath.Join(root, program) {
		t.Errorf("ResolveInStore(%q) = %q, %v", program, resolved, err)
	}

	without := w.BuildSystem(nixtest.Spec{NoSwitch: true, NoHostIdentity: true})
	w.CopyToHost(root, without)
	c = nix.OpenClosure(root, without)
	if has, err := c.HasSwitchToConfiguration(); err != nil || has {
		t.Errorf("HasSwitchToConfiguration without: %v, %v", has, err)
	}
	if _, err := c.HostIdentity(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("HostIdentity without: %v", err)
	}
}
