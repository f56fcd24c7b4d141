// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package gateway

import (
	"crypto/tls"

	"k8s.io/apimachinery/pkg/types"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/identity"
)

// peerPin returns the key that the client has proven to hold. TLS 1.3 has checked the
// proof; that nobody signed the certificate does not matter, because the key is
// compared with those that the Host pins.
func peerPin(state *tls.ConnectionState) (identity.Pin, *refusal) {
	if state == nil || len(state.PeerCertificates) == 0 {
		return identity.Pin{}, unauthorized("no client certificate was presented; the agent must present one made from the host's key")
	}
	pin, err := identity.PinOf(state.PeerCertificates[0].PublicKey)
	if err != nil {
		return identity.Pin{}, forbidden(causeBadKey, "the key of the client certificate cannot be used: %v", err)
	}
	return pin, nil
}

// admit decides whether the holder of pin may act for a Host. A nil host is one that
// does not exist. It is decided anew at every request and at every change of the Host.
func admit(key types.NamespacedName, host *nfv1.Host, pins identity.Pins, pin identity.Pin) *refusal {
	// One message for both, so that a stranger cannot ask which hosts exist.
	if host == nil || !pins.Has(pin) {
		return forbidden(causeNotPinned, "Host %s does not exist, or does not pin the key %s; to let this key in, add it to spec.identity.publicKeys", key, pin.Fingerprint())
	}
	if !host.DeletionTimestamp.IsZero() {
		return forbidden(causeLifecycle, "Host %s is being deleted; its agent is refused", key)
	}
	switch host.Spec.Lifecycle {
	case nfv1.LifecyclePending, nfv1.LifecycleDecommissioned:
		return forbidden(causeLifecycle, "Host %s is %s; hosts of this lifecycle have no agent", key, host.Spec.Lifecycle)
	default:
		return nil
	}
}
