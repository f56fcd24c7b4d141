// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package host

import (
	"slices"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/types"

	"github.com/nixfleet/nixfleet/internal/identity"
)

// keyring knows which Hosts pin which keys. The zero value is empty.
type keyring struct {
	mu      sync.Mutex
	lines   map[types.NamespacedName][]string
	holders map[identity.Pin]map[types.NamespacedName]struct{}
}

// finding is what is worth a warning after a change of a Host's keys.
type finding struct {
	invalid error
	shared  []sharedKey
}

// sharedKey is a key that another Host pins too.
type sharedKey struct {
	fingerprint string
	host        types.NamespacedName
}

// update records the keys of a Host. It finds nothing if they have not changed since
// the last time, and keys that were shared before are not found again.
func (k *keyring) update(host types.NamespacedName, lines []string) finding {
	k.mu.Lock()
	defer k.mu.Unlock()
	before, known := k.lines[host]
	if known && slices.Equal(before, lines) {
		return finding{}
	}
	old, _ := identity.ParsePins(before)
	pins, invalid := identity.ParsePins(lines)
	for pin := range old {
		if !pins.Has(pin) {
			k.drop(pin, host)
		}
	}
	found := finding{invalid: invalid}
	for pin := range pins {
		if !old.Has(pin) {
			found.shared = append(found.shared, k.add(pin, host)...)
		}
	}
	if k.lines == nil {
		k.lines = map[types.NamespacedName][]string{}
	}
	k.lines[host] = slices.Clone(lines)
	slices.SortFunc(found.shared, func(a, b sharedKey) int {
		return strings.Compare(a.host.String()+a.fingerprint, b.host.String()+b.fingerprint)
	})
	return found
}

// forget drops a Host that is gone.
func (k *keyring) forget(host types.NamespacedName) {
	k.update(host, nil)
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.lines, host)
}

// add returns who holds the key already.
func (k *keyring) add(pin identity.Pin, host types.NamespacedName) []sharedKey {
	if k.holders == nil {
		k.holders = map[identity.Pin]map[types.NamespacedName]struct{}{}
	}
	if k.holders[pin] == nil {
		k.holders[pin] = map[types.NamespacedName]struct{}{}
	}
	var shared []sharedKey
	for other := range k.holders[pin] {
		shared = append(shared, sharedKey{fingerprint: pin.Fingerprint(), host: other})
	}
	k.holders[pin][host] = struct{}{}
	return shared
}

func (k *keyring) drop(pin identity.Pin, host types.NamespacedName) {
	delete(k.holders[pin], host)
	if len(k.holders[pin]) == 0 {
		delete(k.holders, pin)
	}
}
