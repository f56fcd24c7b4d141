// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package events

import (
	"fmt"
	"slices"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/rollout"
)

// silentHosts have not been heard of since a moment.
func silentHosts(n int, since time.Time) []*nfv1.Host {
	var out []*nfv1.Host
	for i := range n {
		h := &nfv1.Host{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("h%d", i), UID: types.UID(fmt.Sprint(i))}}
		h.Status.Conditions = []metav1.Condition{{
			Type: nfv1.ConditionOnline, Status: metav1.ConditionUnknown, Reason: nfv1.ReasonLeaseExpired, LastTransitionTime: metav1.NewTime(since),
		}}
		out = append(out, h)
	}
	return out
}

// Reasons of the planner that come from states of a whole fleet.
func TestThePlannerGivesTheseReasons(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	release := &nfv1.Release{ObjectMeta: metav1.ObjectMeta{Name: "rel", UID: "rel"}, Spec: nfv1.ReleaseSpec{
		Verification: nfv1.VerificationSkip, Hosts: map[string]nfv1.StorePath{"h0": "/nix/store/a"},
	}}
	bad := &nfv1.HostSelector{MatchExpressions: []nfv1.HostSelectorRequirement{{Key: "a", Operator: "Nonsense"}}}
	for reason, tc := range map[string]struct {
		selector *nfv1.HostSelector
		release  *nfv1.Release
		hosts    []*nfv1.Host
	}{
		rollout.ReasonReleaseNotFound:  {&nfv1.HostSelector{}, nil, nil},
		rollout.ReasonInvalidSelector:  {bad, release, nil},
		rollout.ReasonFleetUnreachable: {&nfv1.HostSelector{}, release, silentHosts(4, now)},
		rollout.ReasonAllHostsOffline:  {&nfv1.HostSelector{}, release, silentHosts(1, now)},
	} {
		ro := &nfv1.Rollout{ObjectMeta: metav1.ObjectMeta{Name: "ro", UID: "ro"}, Spec: nfv1.RolloutSpec{
			Release: "rel", Selector: tc.selector, Strategy: nfv1.RolloutStrategy{Type: nfv1.StrategyCanary},
		}}
		d := rollout.Plan(rollout.Snapshot{
			Rollout: ro, Rollouts: []*nfv1.Rollout{ro}, Release: tc.release, Hosts: tc.hosts, OfflineWindow: time.Minute,
		}, now)
		if got := d.Notes[0].Reason; got != reason || !slices.Contains(Reasons(KindRollout), got) {
			t.Errorf("the reason is %s, want %s", got, reason)
		}
	}
}
