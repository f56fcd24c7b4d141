// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

//go:build integration

package nix_test

import (
	"strings"
	"testing"

	"github.com/nixfleet/nixfleet/internal/nix"
	"github.com/nixfleet/nixfleet/internal/nix/nixtest"
)

// TestContentAddressesOfNix: the names that Nix computes are the names that we compute.
func TestContentAddressesOfNix(t *testing.T) {
	w := nixtest.New(t)
	cache := w.NewCache()
	copied := cache.PushContentAddressed(w.BuildSystem(nixtest.Spec{
		Host: "web-01", HealthChecks: "@check@", Scripts: map[string]string{"check": "exit 0"},
	}))
	root := w.HostRoot()
	w.CopyToHost(root, copied)
	store := nix.NewStore(root, w.Options()...)
	closure := w.Closure(copied)
	if len(closure) < 5 {
		t.Fatalf("the closure has %d paths", len(closure))
	}
	for _, path := range closure {
		info, err := store.Info(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		ca := strings.TrimSpace(strings.TrimPrefix(lineOf(cache.Narinfo(path), "CA: "), "CA: "))
		if err := nix.VerifyContentAddress(info, ca); err != nil {
			t.Error(err)
		}
		info.References = append(info.References, "/nix/store/0c0mmgsdhjxf8x4sjzzqvxw1hxsyqbnd-added")
		if nix.VerifyContentAddress(info, ca) == nil {
			t.Errorf("%s fits with a reference too many", path)
		}
	}
}
