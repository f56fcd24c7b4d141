// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package host

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

var epoch = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

const window = 180 * time.Second

func at(seconds int) time.Time { return epoch.Add(time.Duration(seconds) * time.Second) }

func stored(status metav1.ConditionStatus, reason string, since int) *metav1.Condition {
	return &metav1.Condition{Type: nfv1.ConditionOnline, Status: status, Reason: reason, Message: "as stored", LastTransitionTime: metav1.NewTime(at(since))}
}

func TestOnline(t *testing.T) {
	hostTime := time.Date(1970, 1, 1, 0, 0, 7, 0, time.UTC) // Of a host without a clock.
	fresh := sighting{lease: "a", since: at(0)}
	still := sighting{lease: "a", renewed: hostTime, since: at(0)}
	moved := sighting{lease: "a", renewed: hostTime, since: at(-1000), moved: at(0)}
	tests := map[string]struct {
		now    int
		seen   sighting
		stored *metav1.Condition
		status metav1.ConditionStatus
		reason string
		since  int
		after  time.Duration
	}{
		"never renewed":                       {0, fresh, nil, "Unknown", nfv1.ReasonNeverSeen, 0, 0},
		"never renewed, long ago":             {9000, fresh, stored("Unknown", nfv1.ReasonNeverSeen, 1), "Unknown", nfv1.ReasonNeverSeen, 1, 0},
		"had no agent before":                 {5, fresh, stored("Unknown", nfv1.ReasonNoAgent, 1), "Unknown", nfv1.ReasonNeverSeen, 1, 0},
		"seen to move":                        {0, moved, nil, "True", nfv1.ReasonLeaseRenewed, 0, window},
		"back again":                          {0, moved, stored("Unknown", nfv1.ReasonLeaseExpired, -500), "True", nfv1.ReasonLeaseRenewed, 0, window},
		"still there":                         {60, moved, stored("True", nfv1.ReasonLeaseRenewed, -500), "True", nfv1.ReasonLeaseRenewed, -500, 120 * time.Second},
		"a second before the window ends":     {179, moved, stored("True", nfv1.ReasonLeaseRenewed, -500), "True", nfv1.ReasonLeaseRenewed, -500, time.Second},
		"the window has ended":                {180, moved, stored("True", nfv1.ReasonLeaseRenewed, -500), "Unknown", nfv1.ReasonLeaseExpired, 180, 0},
		"long gone":                           {9000, moved, stored("Unknown", nfv1.ReasonLeaseExpired, 180), "Unknown", nfv1.ReasonLeaseExpired, 180, 0},
		"new leader, was online":              {1, still, stored("True", nfv1.ReasonLeaseRenewed, -500), "True", nfv1.ReasonLeaseRenewed, -500, 179 * time.Second},
		"new leader, window has passed":       {180, still, stored("True", nfv1.ReasonLeaseRenewed, -500), "Unknown", nfv1.ReasonLeaseExpired, 180, 0},
		"new leader, was offline":             {1, still, stored("Unknown", nfv1.ReasonLeaseExpired, -500), "Unknown", nfv1.ReasonLeaseExpired, -500, 0},
		"new leader, nothing stored":          {1, still, nil, "Unknown", nfv1.ReasonLeaseExpired, 1, 0},
		"new leader, online with a new Lease": {1, fresh, stored("True", nfv1.ReasonLeaseRenewed, -500), "True", nfv1.ReasonLeaseRenewed, -500, 179 * time.Second},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, after := online(at(tt.now), window, tt.seen, tt.stored)
			if got.Status != tt.status || got.Reason != tt.reason || after != tt.after {
				t.Errorf("online = %s %s, again in %s; want %s %s, again in %s", got.Status, got.Reason, after, tt.status, tt.reason, tt.after)
			}
			if !got.LastTransitionTime.Time.Equal(at(tt.since)) {
				t.Errorf("in this state since %s, want %s", got.LastTransitionTime, at(tt.since))
			}
			if got.Message == "" || got.Type != nfv1.ConditionOnline {
				t.Errorf("incomplete condition %+v", got)
			}
		})
	}
}

func lease(uid string, renewed *time.Time) *coordinationv1.Lease {
	l := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{UID: types.UID(uid)}}
	if renewed != nil {
		l.Spec.RenewTime = &metav1.MicroTime{Time: *renewed}
	}
	return l
}

func TestObserve(t *testing.T) {
	one, two := at(100), at(40)
	before := sighting{lease: "a", renewed: one, since: at(0), moved: at(5)}
	tests := map[string]struct {
		seen  *sighting
		lease *coordinationv1.Lease
		want  sighting
	}{
		"first look":                 {nil, lease("a", nil), sighting{lease: "a", since: at(9)}},
		"first look at a used Lease": {nil, lease("a", &one), sighting{lease: "a", renewed: one, since: at(9)}},
		"nothing new":                {&before, lease("a", &one), before},
		"renewed":                    {&before, lease("a", &two), sighting{lease: "a", renewed: two, since: at(0), moved: at(9)}},
		"first renewal":              {&sighting{lease: "a", since: at(0)}, lease("a", &one), sighting{lease: "a", renewed: one, since: at(0), moved: at(9)}},
		"made anew":                  {&before, lease("b", nil), sighting{lease: "b", since: at(9)}},
		"made anew and renewed":      {&before, lease("b", &two), sighting{lease: "b", renewed: two, since: at(9)}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := observe(tt.seen, tt.lease, at(9))
			if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(sighting{})); diff != "" {
				t.Errorf("observe (-want +got):\n%s", diff)
			}
		})
	}
}

// Whatever a host writes as time, it is online exactly while the controller has seen a
// change within the window; and a look that comes when it was asked for is never late.
func TestOnlineFollowsWhatWasSeen(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := epoch
		var seen *sighting
		var condition *metav1.Condition
		var changed time.Time
		hostTime := epoch
		steps := rapid.IntRange(1, 40).Draw(t, "steps")
		for range steps {
			now = now.Add(time.Duration(rapid.IntRange(0, 200).Draw(t, "pass")) * time.Second)
			if rapid.Bool().Draw(t, "renew") {
				hostTime = hostTime.Add(time.Duration(rapid.IntRange(-900, 900).Draw(t, "host clock")*2+1) * time.Second)
				if seen != nil {
					changed = now
				}
			}
			next := observe(seen, lease("a", &hostTime), now)
			seen = &next
			got, after := online(now, window, next, condition)
			isOnline := !changed.IsZero() && now.Sub(changed) < window
			if (got.Status == metav1.ConditionTrue) != isOnline {
				t.Fatalf("online = %s %s after renewals seen at %s, now %s", got.Status, got.Reason, changed, now)
			}
			if isOnline != (after > 0) {
				t.Fatalf("look again in %s while %s", after, got.Status)
			}
			if later, _ := online(now.Add(after), window, next, &got); isOnline && later.Status == metav1.ConditionTrue {
				t.Fatalf("still online when the window is over")
			}
			if condition != nil && got.LastTransitionTime.Before(&condition.LastTransitionTime) {
				t.Fatalf("the transition time went back")
			}
			condition = &got
		}
	})
}

// A look with nothing new must give the very same condition: one that differs would be
// written, and each write would cause another look.
func TestOnlineIsStable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := at(rapid.IntRange(0, 400).Draw(t, "now"))
		hostTime := epoch
		seen := sighting{lease: "a", since: at(0)}
		if rapid.Bool().Draw(t, "renewed") {
			seen.renewed = hostTime
		}
		if rapid.Bool().Draw(t, "moved") {
			seen.renewed, seen.moved = hostTime, at(rapid.IntRange(0, 400).Draw(t, "when"))
		}
		first, _ := online(now, window, seen, nil)
		again, _ := online(now, window, seen, &first)
		if diff := cmp.Diff(first, again); diff != "" {
			t.Fatalf("(-first +again):\n%s", diff)
		}
	})
}
