// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package host

import (
	"crypto/ed25519"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"

	"github.com/nixfleet/nixfleet/internal/identity"
)

// pinned returns the n-th of some keys, in OpenSSH format.
func pinned(t interface{ Fatal(...any) }, n int) string {
	seed := make([]byte, ed25519.SeedSize)
	seed[0] = byte(n)
	line, err := identity.AuthorizedKey(ed25519.NewKeyFromSeed(seed))
	if err != nil {
		t.Fatal(err)
	}
	return line
}

func named(name string) types.NamespacedName {
	return types.NamespacedName{Namespace: "fleet", Name: name}
}

func TestKeyringFindsSharedKeysOnce(t *testing.T) {
	var ring keyring
	one, two := pinned(t, 1), pinned(t, 2)
	pin, err := identity.ParsePin(one)
	if err != nil {
		t.Fatal(err)
	}
	steps := []struct {
		name  string
		host  string
		lines []string
		want  []sharedKey
	}{
		{"the first", "a", []string{one, two}, nil},
		{"another key", "b", []string{pinned(t, 3)}, nil},
		{"the same key, other comment", "c", []string{one + " root@c"}, []sharedKey{{pin.Fingerprint(), named("a")}}},
		{"nothing new", "c", []string{one + " root@c"}, nil},
		{"only the comment is new", "c", []string{one + " root@c2"}, nil},
		{"a key more", "c", []string{one, pinned(t, 4)}, nil},
		{"taken out", "c", nil, nil},
		{"put back", "c", []string{one}, []sharedKey{{pin.Fingerprint(), named("a")}}},
		{"two holders", "b", []string{one}, []sharedKey{{pin.Fingerprint(), named("a")}, {pin.Fingerprint(), named("c")}}},
	}
	for _, step := range steps {
		t.Run(step.name, func(t *testing.T) {
			got := ring.update(named(step.host), step.lines)
			if diff := cmp.Diff(step.want, got.shared, cmp.AllowUnexported(sharedKey{})); diff != "" {
				t.Errorf("shared (-want +got):\n%s", diff)
			}
			if got.invalid != nil {
				t.Errorf("invalid: %v", got.invalid)
			}
		})
	}
}

func TestKeyringTellsWhatIsInvalid(t *testing.T) {
	var ring keyring
	got := ring.update(named("a"), []string{pinned(t, 1), "ssh-ed25519 AAAAbroken"})
	if got.invalid == nil || !strings.Contains(got.invalid.Error(), "key 2") {
		t.Errorf("invalid = %v, want an error about key 2", got.invalid)
	}
	if again := ring.update(named("a"), []string{pinned(t, 1), "ssh-ed25519 AAAAbroken"}); again.invalid != nil {
		t.Error("the same keys were reported twice")
	}
}

// After any history the ring knows exactly who holds what, and nothing of hosts that
// are gone.
func TestKeyringForgetsAll(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var ring keyring
		held := map[types.NamespacedName]map[int]bool{}
		for range rapid.IntRange(0, 60).Draw(t, "steps") {
			host := named(fmt.Sprint("host-", rapid.IntRange(0, 4).Draw(t, "host")))
			if rapid.IntRange(0, 3).Draw(t, "forget") == 0 {
				ring.forget(host)
				delete(held, host)
				continue
			}
			keys := rapid.SliceOfNDistinct(rapid.IntRange(0, 3), 0, 4, rapid.ID[int]).Draw(t, "keys")
			var lines []string
			set := map[int]bool{}
			for _, key := range keys {
				lines = append(lines, pinned(t, key))
				set[key] = true
			}
			for _, shared := range ring.update(host, lines).shared {
				if len(held[shared.host]) == 0 || shared.host == host {
					t.Fatalf("%s shares a key with %s, which holds none", host, shared.host)
				}
			}
			held[host] = set
		}
		pairs := 0
		for _, set := range held {
			pairs += len(set)
		}
		known := 0
		for _, holders := range ring.holders {
			known += len(holders)
			if len(holders) == 0 {
				t.Fatal("a key without holders is kept")
			}
		}
		if known != pairs || len(ring.lines) != len(held) {
			t.Fatalf("the ring knows %d pairs of %d hosts, want %d of %d", known, len(ring.lines), pairs, len(held))
		}
	})
}
