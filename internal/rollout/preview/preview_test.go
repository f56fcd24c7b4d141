// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package preview

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/rollout"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// fleet is a namespace with n hosts, release b with a closure for each, and a rollout to
// it in waves.
func fleet(n int, waves ...nfv1.RolloutWave) rollout.Snapshot {
	rel := &nfv1.Release{
		ObjectMeta: metav1.ObjectMeta{Namespace: "fleet", Name: "b", UID: "release-b", Generation: 1},
		Spec:       nfv1.ReleaseSpec{Hosts: map[string]nfv1.StorePath{}},
	}
	rel.Status.ObservedGeneration, rel.Status.VerifiedAt = 1, metav1.NewTime(noon.Add(-time.Hour))
	set(&rel.Status.Conditions, nfv1.ConditionVerified, metav1.ConditionTrue)
	ro := &nfv1.Rollout{
		ObjectMeta: metav1.ObjectMeta{Namespace: "fleet", Name: "to-b", UID: "rollout-to-b", Generation: 1, CreationTimestamp: metav1.NewTime(noon)},
		Spec: nfv1.RolloutSpec{
			Release: "b", Selector: &nfv1.HostSelector{}, Strategy: nfv1.RolloutStrategy{Type: nfv1.StrategyStaged, Waves: waves},
			HostTimeoutSeconds: 1800, Attempt: 1,
		},
	}
	if len(waves) == 0 {
		ro.Spec.Strategy = nfv1.RolloutStrategy{Type: nfv1.StrategyAllAtOnce}
	}
	s := rollout.Snapshot{Rollout: ro, Release: rel, OfflineWindow: 3 * time.Minute, Releases: map[types.UID]*nfv1.Release{rel.UID: rel}}
	for i := range n {
		h := &nfv1.Host{
			ObjectMeta: metav1.ObjectMeta{Namespace: "fleet", Name: fmt.Sprintf("host-%02d", i), UID: types.UID(fmt.Sprint("host-", i)), ResourceVersion: "1"},
			Spec:       nfv1.HostSpec{Platform: nfv1.PlatformX8664Linux, Lifecycle: nfv1.LifecycleActive},
		}
		h.Status.Running = &nfv1.SystemGeneration{StorePath: path("a", h.Name)}
		set(&h.Status.Conditions, nfv1.ConditionOnline, metav1.ConditionTrue)
		set(&h.Status.Conditions, nfv1.ConditionHealthy, metav1.ConditionTrue)
		rel.Spec.Hosts[h.Name] = path("b", h.Name)
		s.Hosts = append(s.Hosts, h)
	}
	s.Rollouts = []*nfv1.Rollout{ro}
	return s
}

func path(release, host string) nfv1.StorePath {
	return nfv1.StorePath(fmt.Sprintf("/nix/store/%032d-nixos-system-%s-%s", 0, host, release))
}

func set(conditions *[]metav1.Condition, kind string, status metav1.ConditionStatus) {
	meta.SetStatusCondition(conditions, metav1.Condition{Type: kind, Status: status, Reason: "Test", LastTransitionTime: metav1.NewTime(noon.Add(-time.Hour))})
}

func number(n int) *intstr.IntOrString {
	v := intstr.FromInt(n)
	return &v
}

func canaryThenRest() []nfv1.RolloutWave {
	return []nfv1.RolloutWave{
		{Name: "canary", Size: number(1), SoakSeconds: 300},
		{Name: "rest", MaxUnavailable: number(2), Approval: nfv1.WaveApprovalRequired},
	}
}

func TestAForecastIsWhatThePlannerDoes(t *testing.T) {
	s := fleet(6, canaryThenRest()...)
	before := s.Rollout.DeepCopy()
	f := Play(s, noon, OrderKnown)
	if f.End.Phase != nfv1.RolloutPhaseSucceeded || f.Now.Phase != nfv1.RolloutPhaseProgressing {
		t.Errorf("got now %+v and end %+v", f.Now, f.End)
	}
	// The order is that of the planner: each batch is what it assigns next.
	if diff := cmp.Diff(order(f), byHand(t, fleet(6, canaryThenRest()...))); diff != "" {
		t.Errorf("the order is not the planner's (-forecast +planner):\n%s", diff)
	}
	sizes := []int{}
	for _, batch := range f.Waves[1].Batches {
		sizes = append(sizes, len(batch))
	}
	if diff := cmp.Diff([]int{2, 2, 1}, sizes); diff != "" {
		t.Errorf("batches of the second wave (-want +got):\n%s", diff)
	}
	if f.WaitSeconds < 300 || f.WaitSeconds > 302 {
		t.Errorf("soaks of %d s, want 300 and a second for rounding", f.WaitSeconds)
	}
	if diff := cmp.Diff([]string{"somebody approves wave rest"}, f.Assumed); diff != "" {
		t.Errorf("assumptions (-want +got):\n%s", diff)
	}
	if f.Waves[0].Approval != ApprovalNone || f.Waves[1].Approval != ApprovalNeeded {
		t.Errorf("approvals %s and %s", f.Waves[0].Approval, f.Waves[1].Approval)
	}
	if diff := cmp.Diff(before, s.Rollout); diff != "" {
		t.Errorf("the rollout was changed:\n%s", diff)
	}
}

// byHand lets the planner assign and hosts succeed, by means of its own only.
func byHand(t *testing.T, s rollout.Snapshot) []string {
	t.Helper()
	s.Rollout.Spec.ApprovedWaves = []string{"rest"}
	var out []string
	now := noon
	for range 100 {
		s.Release.Status.VerifiedAt = metav1.NewTime(now)
		d := rollout.Plan(s, now)
		s.Rollout.Status = d.Status
		for _, a := range d.Assignments {
			out = append(out, a.Host.Name)
			a.Host.Spec.Desired = a.Desired.DeepCopy()
			a.Host.Status.ObservedRevision = a.Desired.Revision
			a.Host.Status.Attempt = &nfv1.HostAttempt{
				Revision: a.Desired.Revision, StorePath: a.Desired.StorePath, RolloutUID: s.Rollout.UID, Outcome: nfv1.AttemptSucceeded,
			}
		}
		if d.Status.Phase.Finished() {
			return out
		}
		if len(d.Assignments) == 0 {
			now = now.Add(max(d.RecheckAfter, time.Second))
		}
	}
	t.Fatal("the rollout does not end")
	return nil
}

func order(f Forecast) []string {
	var out []string
	for _, w := range f.Waves {
		out = append(out, slices.Concat(w.Batches...)...)
	}
	return out
}

func TestAForecastEndsWhereTheRolloutWouldStand(t *testing.T) {
	tests := map[string]struct {
		change func(*rollout.Snapshot)
		phase  nfv1.RolloutPhase
		reason string
	}{
		"release is missing": {func(s *rollout.Snapshot) { s.Release = nil }, nfv1.RolloutPhaseBlocked, rollout.ReasonReleaseNotFound},
		"release is not good": {func(s *rollout.Snapshot) {
			set(&s.Release.Status.Conditions, nfv1.ConditionVerified, metav1.ConditionFalse)
		}, nfv1.RolloutPhaseBlocked, rollout.ReasonReleaseNotVerified},
		"paused":  {func(s *rollout.Snapshot) { s.Rollout.Spec.State = nfv1.RolloutStatePaused }, nfv1.RolloutPhasePaused, rollout.ReasonPaused},
		"no host": {func(s *rollout.Snapshot) { s.Hosts = nil }, nfv1.RolloutPhaseFailed, rollout.ReasonNoHosts},
		"typo in a selector": {func(s *rollout.Snapshot) {
			s.Rollout.Spec.Strategy.Waves[0].Selector = &nfv1.HostSelector{MatchLabels: map[string]nfv1.LabelValue{"ring": "canray"}}
		}, nfv1.RolloutPhaseBlocked, rollout.ReasonEmptyWave},
		"older rollout": {func(s *rollout.Snapshot) {
			older := s.Rollout.DeepCopy()
			older.Name, older.UID, older.CreationTimestamp = "before", "rollout-before", metav1.NewTime(noon.Add(-time.Hour))
			s.Rollouts = append(s.Rollouts, older)
		}, nfv1.RolloutPhaseBlocked, rollout.ReasonHeld},
		"everything is fine": {func(*rollout.Snapshot) {}, nfv1.RolloutPhaseSucceeded, rollout.ReasonSucceeded},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			s := fleet(3, canaryThenRest()...)
			tc.change(&s)
			f := Play(s, noon, OrderKnown)
			if f.End.Phase != tc.phase || f.End.Reason != tc.reason || f.End.Message == "" || f.Truncated {
				t.Errorf("got %+v, want %s by %s", f.End, tc.phase, tc.reason)
			}
		})
	}
}

func TestAReleaseThatWasNeverLookedAtIsAssumedGood(t *testing.T) {
	s := fleet(3)
	s.Release.Status = nfv1.ReleaseStatus{}
	f := Play(s, noon, OrderKnown)
	if f.Now.Reason != rollout.ReasonReleaseNotVerified || f.End.Phase != nfv1.RolloutPhaseSucceeded {
		t.Errorf("got now %+v and end %+v", f.Now, f.End)
	}
	if diff := cmp.Diff([]string{"release b is found good"}, f.Assumed); diff != "" {
		t.Errorf("assumptions (-want +got):\n%s", diff)
	}
	if !s.Release.Status.VerifiedAt.IsZero() {
		t.Error("the release was changed")
	}
}

func TestHostsThatDoNotMoveAreNamed(t *testing.T) {
	s := fleet(4)
	s.Hosts[0].Spec.Lifecycle = nfv1.LifecycleMaintenance
	delete(s.Release.Spec.Hosts, "host-01")
	set(&s.Hosts[2].Status.Conditions, nfv1.ConditionOnline, metav1.ConditionUnknown)
	f := Play(s, noon, OrderKnown)
	want := []Kept{{Host: "host-00", Reason: rollout.ReasonLifecycle}, {Host: "host-01", Reason: rollout.ReasonClosureMissing}}
	if diff := cmp.Diff(want, f.Kept, cmpopts.IgnoreFields(Kept{}, "Message")); diff != "" {
		t.Errorf("kept hosts (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"host-02"}, f.Late); diff != "" {
		t.Errorf("late hosts (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"host-03"}, order(f)); diff != "" {
		t.Errorf("moved hosts (-want +got):\n%s", diff)
	}
}

func TestTheOrderOfARolloutThatIsNotThereYetIsNotPromised(t *testing.T) {
	f := Play(fleet(4, canaryThenRest()...), noon, OrderDrawn)
	if f.Waves[0].Batches != nil || len(f.Waves[0].Candidates) != 4 || f.Waves[0].Size != 1 {
		t.Errorf("the canary is drawn of four: got %+v", f.Waves[0])
	}
	all := Play(fleet(4), noon, OrderDrawn)
	if diff := cmp.Diff([][]string{{"host-00", "host-01", "host-02", "host-03"}}, all.Waves[0].Batches); diff != "" {
		t.Errorf("a wave that takes all at once is known (-want +got):\n%s", diff)
	}
}

func TestARolloutOnItsWayGoesOn(t *testing.T) {
	s := fleet(3, canaryThenRest()...)
	d := rollout.Plan(s, noon) // ready at this moment
	s.Rollout.Status = d.Status
	s.Release.Status.VerifiedAt = metav1.NewTime(noon)
	d = rollout.Plan(s, noon)
	s.Rollout.Status = d.Status
	if len(d.Assignments) != 1 {
		t.Fatalf("%d assignments of the canary", len(d.Assignments))
	}
	canary := d.Assignments[0]
	canary.Host.Spec.Desired = canary.Desired.DeepCopy()
	f := Play(s, noon, OrderKnown)
	if diff := cmp.Diff([]string{canary.Host.Name}, f.Waves[0].Moved); diff != "" || len(f.Waves[0].Batches) != 0 {
		t.Errorf("the canary was assigned before; got %+v", f.Waves[0])
	}
	if f.End.Phase != nfv1.RolloutPhaseSucceeded || len(order(f)) != 2 {
		t.Errorf("got %v and %+v", order(f), f.End)
	}
}

func TestAForecastIsBounded(t *testing.T) {
	s := fleet(maxSteps+10, nfv1.RolloutWave{Name: "all", MaxUnavailable: number(1)})
	if f := Play(s, noon, OrderKnown); !f.Truncated || len(order(f)) == 0 {
		t.Errorf("%d steps were played to the end", maxSteps)
	}
}

func TestWhy(t *testing.T) {
	first := order(Play(fleet(4, canaryThenRest()...), noon, OrderKnown))
	tests := map[string]struct {
		change func(*rollout.Snapshot)
		host   string
		moves  Moves
		reason string
		says   string
		place  *Place
	}{
		"not selected": {func(s *rollout.Snapshot) { s.Rollout.Spec.Selector = nil }, "host-00", MovesNotSelected, rollout.ReasonNotSelected, "neither names", nil},
		"kept out":     {func(s *rollout.Snapshot) { s.Hosts[0].Spec.Lifecycle = nfv1.LifecycleMaintenance }, "host-00", MovesNever, rollout.ReasonLifecycle, "Maintenance", nil},
		"canary":       {func(*rollout.Snapshot) {}, first[0], MovesNow, "", "", &Place{Wave: "canary", Batch: 1, Batches: 1}},
		"waits for its wave": {
			func(*rollout.Snapshot) {}, first[3], MovesLater, rollout.ReasonProgressing, "wave canary: 0 of 1",
			&Place{Wave: "rest", Batch: 2, Batches: 2, Before: 3},
		},
		"paused": {func(s *rollout.Snapshot) { s.Rollout.Spec.State = nfv1.RolloutStatePaused }, "host-00", MovesLater, rollout.ReasonPaused, "Running to go on", nil},
		"capacity": {func(s *rollout.Snapshot) {
			s.Rollout.Spec.Strategy.Waves = []nfv1.RolloutWave{{Name: "all", MaxUnavailable: number(1)}}
			for _, h := range s.Hosts[:2] {
				set(&h.Status.Conditions, nfv1.ConditionHealthy, metav1.ConditionFalse)
			}
		}, "host-03", MovesLater, rollout.ReasonCapacity, "maxUnavailable is 1", &Place{Wave: "all", Batch: 2, Batches: 3, Before: 2}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			s := fleet(4, canaryThenRest()...)
			s.Release.Status.VerifiedAt = metav1.NewTime(noon)
			tc.change(&s)
			got, err := Why(s, noon, tc.host)
			if err != nil {
				t.Fatal(err)
			}
			if got.Moves != tc.moves {
				t.Errorf("moves %s, want %s: %+v", got.Moves, tc.moves, got)
			}
			if tc.reason != "" && (len(got.Reasons) == 0 || got.Reasons[0].Reason != tc.reason || !strings.Contains(got.Reasons[0].Message, tc.says)) {
				t.Errorf("reasons %+v, want %s: %s first", got.Reasons, tc.reason, tc.says)
			}
			if name != "capacity" {
				if diff := cmp.Diff(tc.place, got.Place); diff != "" {
					t.Errorf("place (-want +got):\n%s", diff)
				}
			}
		})
	}
}

func TestWhyOfAHostThatIsNotThere(t *testing.T) {
	if _, err := Why(fleet(1), noon, "host-99"); err == nil || !strings.Contains(err.Error(), `no Host "host-99" in namespace "fleet"`) {
		t.Errorf("got %v", err)
	}
}
