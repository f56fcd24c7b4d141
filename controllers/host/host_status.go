// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package host

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/events"
	"github.com/nixfleet/nixfleet/internal/ssa"
)

// noReport is the observedGeneration of a Host whose agent has not reported yet. It
// never equals a generation, so nobody takes the Host for settled.
const noReport = -1

func onlineOf(host *nfv1.Host) *metav1.Condition {
	return meta.FindStatusCondition(host.Status.Conditions, nfv1.ConditionOnline)
}

// report writes the condition Online of a host that has an agent, if it has changed.
func (r *Reconciler) report(ctx context.Context, host *nfv1.Host, verdict metav1.Condition) error {
	stored := onlineOf(host)
	want := nfv1.HostStatus{Conditions: []metav1.Condition{verdict}}
	reported := host.Status.Phase != ""
	if !reported {
		want.ObservedGeneration = noReport
	}
	settled := meta.FindStatusCondition(host.Status.Conditions, nfv1.ConditionReady)
	leftOver := settled != nil && settled.Reason == nfv1.ReasonLifecycle
	if stored != nil && equality.Semantic.DeepEqual(*stored, verdict) && !leftOver && (reported || host.Status.ObservedGeneration == noReport) {
		return nil
	}
	if err := ssa.Status(ctx, r.Client, nfv1.FieldOwnerHost, host, ssa.SameVersion, &want); err != nil {
		return err
	}
	wasOnline := stored != nil && stored.Status == metav1.ConditionTrue
	switch isOnline := verdict.Status == metav1.ConditionTrue; {
	case isOnline && !wasOnline:
		r.Recorder.Eventf(host, nil, corev1.EventTypeNormal, events.ReasonOnline, actionObserve, "the agent renews the host's Lease")
	case !isOnline && wasOnline:
		// Not a warning: laptops sleep.
		r.Recorder.Eventf(host, nil, corev1.EventTypeNormal, events.ReasonOffline, actionObserve, "%s", verdict.Message)
	}
	return nil
}

// retire writes the status of a host that has no agent: nothing is to be waited for.
func (r *Reconciler) retire(ctx context.Context, host *nfv1.Host) error {
	want := retired(host, r.Clock.Now())
	if reportLeft(host) {
		if err := r.clearReport(ctx, host); err != nil {
			return err
		}
	} else if host.Status.ObservedGeneration == want.ObservedGeneration && sameConditions(host.Status.Conditions, want.Conditions) {
		return nil
	}
	return ssa.Status(ctx, r.Client, nfv1.FieldOwnerHost, host, ssa.SameVersion, &want)
}

// retired is the status that the controller owns of a host without an agent.
func retired(host *nfv1.Host, now time.Time) nfv1.HostStatus {
	message := "the host is Pending: it has no agent yet and takes part in no rollout"
	if host.Spec.Lifecycle == nfv1.LifecycleDecommissioned {
		message = "the host is Decommissioned: its agent is refused and it takes part in no rollout"
	}
	ready := metav1.Condition{
		Type: nfv1.ConditionReady, Status: metav1.ConditionTrue, Reason: nfv1.ReasonLifecycle, Message: message,
		ObservedGeneration: host.Generation, LastTransitionTime: metav1.NewTime(now.Truncate(time.Second)),
	}
	if stored := meta.FindStatusCondition(host.Status.Conditions, ready.Type); stored != nil && stored.Status == ready.Status {
		ready.LastTransitionTime = stored.LastTransitionTime
	}
	return nfv1.HostStatus{
		ObservedGeneration: host.Generation,
		Conditions: []metav1.Condition{
			condition(onlineOf(host), now, metav1.ConditionUnknown, nfv1.ReasonNoAgent, "a host of this lifecycle has no agent"), ready,
		},
	}
}

// reportLeft says whether the status still has what an agent reported and what would be
// read as the present: a phase, progress, or a condition that is not ours.
func reportLeft(host *nfv1.Host) bool {
	if host.Status.Phase != "" || host.Status.Fetch != nil {
		return true
	}
	for _, c := range host.Status.Conditions {
		ours := c.Type == nfv1.ConditionOnline || (c.Type == nfv1.ConditionReady && c.Reason == nfv1.ReasonLifecycle)
		if !ours {
			return true
		}
	}
	return false
}

// clearReport removes what reportLeft finds. It is not an apply: an apply can take over
// the values of a condition but not the agent's share in its type, and would leave half
// a condition behind, which is not valid, when one of the two owners lets go. A patch
// that removes a field removes it from all owners. What the host last ran and attempted
// stays, as a record.
func (r *Reconciler) clearReport(ctx context.Context, host *nfv1.Host) error {
	data, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"resourceVersion": host.ResourceVersion, "uid": host.UID},
		"status":   map[string]any{"conditions": nil, "phase": nil, "fetch": nil},
	})
	if err != nil {
		return fmt.Errorf("encode status of Host %s: %w", client.ObjectKeyFromObject(host), err)
	}
	err = r.Client.Status().Patch(ctx, host, client.RawPatch(types.MergePatchType, data), client.FieldOwner(nfv1.FieldOwnerHost))
	if err != nil {
		return fmt.Errorf("clear the former agent's report of Host %s: %w", client.ObjectKeyFromObject(host), err)
	}
	return nil
}

func sameConditions(a, b []metav1.Condition) bool {
	if len(a) != len(b) {
		return false
	}
	for _, c := range a {
		other := meta.FindStatusCondition(b, c.Type)
		if other == nil || !equality.Semantic.DeepEqual(c, *other) {
			return false
		}
	}
	return true
}
