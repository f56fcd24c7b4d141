// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package manager

import (
	"unique"

	"k8s.io/apimachinery/pkg/api/meta"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

// trim drops who owns which field, which nobody in this process reads, from objects
// before they are cached, and lets hosts share what they have in common. Everything else
// stays: the gateway answers agents from the cache, and one that lost its journal learns
// from the Host what it had reported.
func trim(object any) (any, error) {
	if accessor, err := meta.Accessor(object); err == nil {
		accessor.SetManagedFields(nil)
	}
	if host, ok := object.(*nfv1.Host); ok {
		share(host)
	}
	return object, nil
}

// share replaces strings that many hosts, or many fields of a host, have in common.
func share(h *nfv1.Host) {
	for key, value := range h.Labels {
		delete(h.Labels, key)
		h.Labels[one(key)] = one(value)
	}
	h.Namespace = one(h.Namespace)
	h.Spec.Platform, h.Spec.Lifecycle = one(h.Spec.Platform), one(h.Spec.Lifecycle)
	if d := h.Spec.Desired; d != nil {
		shareDesired(d)
	}
	if a := h.Status.Attempt; a != nil {
		shareAttempt(a)
	}
	for i := range h.Status.History {
		shareAttempt(&h.Status.History[i])
	}
	for _, g := range []*nfv1.SystemGeneration{h.Status.Running, h.Status.Booted, h.Status.Profile} {
		if g != nil {
			g.StorePath, g.Label, g.ConfigurationRevision = one(g.StorePath), one(g.Label), one(g.ConfigurationRevision)
		}
	}
	for i := range h.Status.Conditions {
		c := &h.Status.Conditions[i]
		c.Type, c.Status, c.Reason, c.Message = one(c.Type), one(c.Status), one(c.Reason), one(c.Message)
	}
}

func shareAttempt(a *nfv1.HostAttempt) {
	a.StorePath, a.RolloutUID, a.Outcome = one(a.StorePath), one(a.RolloutUID), one(a.Outcome)
	a.Reason, a.Message = one(a.Reason), one(a.Message)
	for i := range a.Phases {
		a.Phases[i].Phase = one(a.Phases[i].Phase)
	}
}

func shareDesired(d *nfv1.Desired) {
	d.Intent, d.Wave = one(d.Intent), one(d.Wave)
	d.StorePath, d.PreviousStorePath = one(d.StorePath), one(d.PreviousStorePath)
	for _, r := range []*nfv1.ObjectReference{d.Release, d.Rollout} {
		if r != nil {
			r.Name, r.UID = one(r.Name), one(r.UID)
		}
	}
	for _, caches := range [][]nfv1.CacheURL{d.Caches, d.PreviousCaches} {
		for i := range caches {
			caches[i] = one(caches[i])
		}
	}
}

// one is the same string, stored once however many have it.
func one[S ~string](s S) S { return unique.Make(s).Value() }
