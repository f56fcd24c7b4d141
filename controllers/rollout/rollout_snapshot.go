// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package rollout

import (
	"context"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/rollout"
)

// snapshot reads everything that the planner needs to know about the rollout. The
// objects are those of the cache and must not be changed.
func (r *Reconciler) snapshot(ctx context.Context, ro *nfv1.Rollout) (rollout.Snapshot, error) {
	s := rollout.Snapshot{Rollout: ro, OfflineWindow: r.OfflineWindow, Releases: map[types.UID]*nfv1.Release{}}
	inNamespace := []client.ListOption{client.InNamespace(ro.Namespace), client.UnsafeDisableDeepCopy}

	var hosts nfv1.HostList
	if err := r.Client.List(ctx, &hosts, inNamespace...); err != nil {
		return s, err
	}
	for i := range hosts.Items {
		s.Hosts = append(s.Hosts, &hosts.Items[i])
	}
	var releases nfv1.ReleaseList
	if err := r.Client.List(ctx, &releases, inNamespace...); err != nil {
		return s, err
	}
	for i := range releases.Items {
		rel := &releases.Items[i]
		s.Releases[rel.UID] = rel
		if rel.Name == ro.Spec.Release {
			s.Release = rel
		}
	}
	var rollouts nfv1.RolloutList
	if err := r.Client.List(ctx, &rollouts, inNamespace...); err != nil {
		return s, err
	}
	for i := range rollouts.Items {
		s.Rollouts = append(s.Rollouts, &rollouts.Items[i])
	}
	return s, r.addUnknownHolders(ctx, &s)
}

// addUnknownHolders reads rollouts that hosts name and the cache does not know: a
// holder is not gone because the cache is behind.
func (r *Reconciler) addUnknownHolders(ctx context.Context, s *rollout.Snapshot) error {
	known := map[types.UID]bool{}
	for _, ro := range s.Rollouts {
		known[ro.UID] = true
	}
	for _, h := range s.Hosts {
		d := h.Spec.Desired
		if d == nil || d.Rollout == nil || known[d.Rollout.UID] || h.Status.ObservedRevision >= d.Revision {
			continue
		}
		known[d.Rollout.UID] = true
		var ro nfv1.Rollout
		err := r.Live.Get(ctx, client.ObjectKey{Namespace: h.Namespace, Name: d.Rollout.Name}, &ro)
		switch {
		case apierrors.IsNotFound(err):
		case err != nil:
			return err
		case ro.UID == d.Rollout.UID:
			s.Rollouts = append(s.Rollouts, &ro)
		}
	}
	return nil
}
