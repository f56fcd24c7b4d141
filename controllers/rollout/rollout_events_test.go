// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package rollout

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientevents "k8s.io/client-go/tools/events"
	testingclock "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/rollout"
)

func failure(wave, host string) nfv1.HostFailure {
	return nfv1.HostFailure{Host: nfv1.HostName(host), Wave: wave, Reason: "Timeout", Message: "late"}
}

func wave(name string, failed int32, hosts ...nfv1.HostName) nfv1.WaveStatus {
	return nfv1.WaveStatus{Name: name, Failed: failed, FailedHosts: hosts}
}

func TestNewFailures(t *testing.T) {
	one := nfv1.RolloutStatus{Attempt: 1, Waves: []nfv1.WaveStatus{wave("w", 1, "a")}, Failures: []nfv1.HostFailure{failure("w", "a")}}
	for name, tc := range map[string]struct {
		before           nfv1.RolloutStatus
		after            rollout.Decision
		listed, unlisted []nfv1.HostFailure
	}{
		"the first": {
			nfv1.RolloutStatus{Attempt: 1}, rollout.Decision{Status: one, Failed: one.Failures}, one.Failures, nil,
		},
		"nothing new, as after a restart": {
			one, rollout.Decision{Status: one, Failed: one.Failures}, nil, nil,
		},
		"again in a new attempt": {
			one, rollout.Decision{
				Status: nfv1.RolloutStatus{Attempt: 2, Waves: one.Waves, Failures: one.Failures}, Failed: one.Failures,
			}, one.Failures, nil,
		},
		"named by its wave alone": {
			one, rollout.Decision{
				Status: nfv1.RolloutStatus{Attempt: 1, Waves: []nfv1.WaveStatus{wave("w", 2, "a", "b")}, Failures: one.Failures},
				Failed: []nfv1.HostFailure{failure("w", "a"), failure("w", "b")},
			}, []nfv1.HostFailure{failure("w", "b")}, nil,
		},
		"more than are named": {
			one, rollout.Decision{
				Status: nfv1.RolloutStatus{Attempt: 1, Waves: []nfv1.WaveStatus{wave("w", 3, "a")}, Failures: one.Failures},
				Failed: []nfv1.HostFailure{failure("w", "a"), failure("w", "b"), failure("w", "c")},
			}, nil, []nfv1.HostFailure{failure("w", "b"), failure("w", "c")},
		},
		"a host that came late, outside of any wave": {
			one, rollout.Decision{
				Status: nfv1.RolloutStatus{Attempt: 1, Waves: one.Waves, Failures: append(one.Failures[:1:1], failure("", "z"))},
				Failed: []nfv1.HostFailure{failure("w", "a"), failure("", "z")},
			}, []nfv1.HostFailure{failure("", "z")}, nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			listed, unlisted := newFailures(&tc.before, tc.after)
			if diff := cmp.Diff([][]nfv1.HostFailure{tc.listed, tc.unlisted}, [][]nfv1.HostFailure{listed, unlisted}); diff != "" {
				t.Errorf("failures (-want +got):\n%s", diff)
			}
		})
	}
}

// listing is a recorder that keeps what it is told, with the objects.
type listing struct {
	clientevents.EventRecorder
	events []string
}

func (l *listing) Eventf(regarding, related runtime.Object, kind, reason, action, note string, args ...any) {
	objects := regarding.(client.Object).GetName()
	if related != nil {
		objects += " and " + related.(client.Object).GetName()
	}
	l.events = append(l.events, fmt.Sprintf("%s %s %s (%s)", kind, reason, fmt.Sprintf(note, args...), objects))
}

func TestAFailureIsRecordedOnTheRolloutAndOnTheHost(t *testing.T) {
	recorder := &listing{}
	r := &Reconciler{Recorder: recorder, Clock: testingclock.NewFakeClock(metav1.Now().Time)}
	host := func(name string) *nfv1.Host { return &nfv1.Host{ObjectMeta: metav1.ObjectMeta{Name: name}} }
	ro := &nfv1.Rollout{ObjectMeta: metav1.ObjectMeta{Name: "ro"}}
	odd := nfv1.HostFailure{Host: "b", Reason: "Words of a host", Message: "m"}
	d := rollout.Decision{
		Status: nfv1.RolloutStatus{Phase: nfv1.RolloutPhaseProgressing, Failures: []nfv1.HostFailure{failure("w", "a"), odd}},
		Failed: []nfv1.HostFailure{failure("w", "a"), odd},
		Notes:  []rollout.Note{{Reason: rollout.ReasonProgressing}},
	}
	d.Status.Message = "moving"
	r.recordProgress(ro, &nfv1.RolloutStatus{}, rollout.Snapshot{Hosts: []*nfv1.Host{host("a"), host("b")}}, d)
	d.Status.Conditions = []metav1.Condition{{Type: nfv1.ConditionReady, Reason: rollout.ReasonProgressing}}
	r.recordProgress(ro, &d.Status, rollout.Snapshot{}, d) // a new leader, or the same plan again
	want := []string{
		"Normal Progressing moving (ro)",
		"Warning HostFailed host a failed: Timeout: late (ro and a)",
		"Warning Timeout failed in rollout ro: Timeout: late (a and ro)",
		"Warning HostFailed host b failed: Words of a host: m (ro and b)",
		"Warning HostFailed failed in rollout ro: Words of a host: m (b and ro)",
	}
	if diff := cmp.Diff(want, recorder.events); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

func TestBeginsWith(t *testing.T) {
	ro := &nfv1.Rollout{ObjectMeta: metav1.ObjectMeta{UID: "u"}}
	counted := &nfv1.Rollout{ObjectMeta: ro.ObjectMeta, Status: nfv1.RolloutStatus{Hosts: &nfv1.HostCounts{Assigned: 1}}}
	ours := &nfv1.Host{Spec: nfv1.HostSpec{Desired: &nfv1.Desired{Intent: nfv1.IntentNone, Rollout: &nfv1.ObjectReference{UID: "u"}}}}
	some := rollout.Decision{Assignments: make([]rollout.Assignment, 1)}
	for name, tc := range map[string]struct {
		s    rollout.Snapshot
		d    rollout.Decision
		want bool
	}{
		"the first":          {rollout.Snapshot{Rollout: ro, Hosts: []*nfv1.Host{{}}}, some, true},
		"nothing to assign":  {rollout.Snapshot{Rollout: ro}, rollout.Decision{}, false},
		"a host remembers":   {rollout.Snapshot{Rollout: ro, Hosts: []*nfv1.Host{ours}}, some, false},
		"the status counted": {rollout.Snapshot{Rollout: counted}, some, false},
	} {
		if got := beginsWith(tc.s, tc.d); got != tc.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}
