// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package cli

import (
	"context"
	"time"

	"k8s.io/apimachinery/pkg/types"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/rollout"
)

// snapshot reads what the planner needs to know about a namespace. The rollout is to be
// set by the caller.
func (a *api) snapshot(ctx context.Context, namespace string, offlineWindow time.Duration) (rollout.Snapshot, error) {
	s := rollout.Snapshot{OfflineWindow: offlineWindow, Releases: map[types.UID]*nfv1.Release{}}
	everything := scope{namespace: namespace}
	hosts, err := list[*nfv1.HostList](ctx, a.hosts(everything))
	if err != nil {
		return s, err
	}
	for i := range hosts.Items {
		s.Hosts = append(s.Hosts, &hosts.Items[i])
	}
	releases, err := list[*nfv1.ReleaseList](ctx, a.releases(everything))
	if err != nil {
		return s, err
	}
	for i := range releases.Items {
		s.Releases[releases.Items[i].UID] = &releases.Items[i]
	}
	rollouts, err := list[*nfv1.RolloutList](ctx, a.rollouts(everything))
	if err != nil {
		return s, err
	}
	for i := range rollouts.Items {
		s.Rollouts = append(s.Rollouts, &rollouts.Items[i])
	}
	return s, nil
}

// choose makes the snapshot one about a rollout, which may be none that is stored.
func choose(s rollout.Snapshot, ro *nfv1.Rollout) rollout.Snapshot {
	s.Rollout = ro
	for _, rel := range s.Releases {
		if rel.Name == ro.Spec.Release {
			s.Release = rel
		}
	}
	return s
}

// stored is the rollout of that name in a snapshot, or nil.
func stored(s rollout.Snapshot, name string) *nfv1.Rollout {
	for _, ro := range s.Rollouts {
		if ro.Name == name {
			return ro
		}
	}
	return nil
}
