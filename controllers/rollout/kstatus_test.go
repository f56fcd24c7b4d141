// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

//go:build integration

package rollout

import (
	"context"
	"fmt"
	"sync"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
	"sigs.k8s.io/controller-runtime/pkg/client"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

// kstatusFaults is what is wrong with the status of a Host, Release or Rollout in the
// eyes of tools that follow kstatus. It holds for every version that is ever stored.
func kstatusFaults(o client.Object) []string {
	observed, conditions := statusOf(o)
	var faults []string
	fault := func(format string, args ...any) {
		faults = append(faults, fmt.Sprintf("%T %s at %s: ", o, client.ObjectKeyFromObject(o), o.GetResourceVersion())+fmt.Sprintf(format, args...))
	}
	if observed < -1 || observed == 0 || observed > o.GetGeneration() {
		fault("observedGeneration is %d and generation %d", observed, o.GetGeneration())
	}
	ready := meta.FindStatusCondition(conditions, nfv1.ConditionReady)
	reconciling, stalled := present(conditions, nfv1.ConditionReconciling), present(conditions, nfv1.ConditionStalled)
	for _, kind := range []string{nfv1.ConditionReconciling, nfv1.ConditionStalled} {
		if c := meta.FindStatusCondition(conditions, kind); c != nil && c.Status != metav1.ConditionTrue {
			fault("%s is present and %s", kind, c.Status)
		}
	}
	switch {
	case ready == nil:
		if observed >= 0 || reconciling || stalled {
			fault("there is no condition Ready")
		}
		return faults
	case ready.ObservedGeneration != observed:
		fault("Ready is of generation %d, the status of %d", ready.ObservedGeneration, observed)
	case ready.Reason == "":
		fault("Ready has no reason")
	}
	want := map[metav1.ConditionStatus][2]bool{
		metav1.ConditionTrue: {false, false}, metav1.ConditionUnknown: {true, false}, metav1.ConditionFalse: {false, true},
	}[ready.Status]
	if got := [2]bool{reconciling, stalled}; got != want {
		fault("Ready is %s beside Reconciling %t and Stalled %t", ready.Status, reconciling, stalled)
	}
	current, err := current(o)
	switch {
	case err != nil:
		fault("%v", err)
	case current && ready.Status != metav1.ConditionTrue:
		fault("it counts as current although Ready is %s", ready.Status)
	case current:
		if why := notDone(o); why != "" {
			fault("it counts as current although %s", why)
		}
	}
	return append(faults, phaseFaults(o, ready.Status)...)
}

func present(conditions []metav1.Condition, kind string) bool {
	return meta.FindStatusCondition(conditions, kind) != nil
}

func statusOf(o client.Object) (int64, []metav1.Condition) {
	switch o := o.(type) {
	case *nfv1.Host:
		return o.Status.ObservedGeneration, o.Status.Conditions
	case *nfv1.Release:
		return o.Status.ObservedGeneration, o.Status.Conditions
	case *nfv1.Rollout:
		return o.Status.ObservedGeneration, o.Status.Conditions
	}
	panic(fmt.Sprintf("no status is known of %T", o))
}

// current asks the library that the tools use.
func current(o client.Object) (bool, error) {
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
	if err != nil {
		return false, err
	}
	result, err := status.Compute(&unstructured.Unstructured{Object: content})
	if err != nil {
		return false, err
	}
	return result.Status == status.CurrentStatus, nil
}

// notDone is what is left to do about an object that says that it is done.
func notDone(o client.Object) string {
	switch o := o.(type) {
	case *nfv1.Host:
		d, a := o.Spec.Desired, o.Status.Attempt
		if d != nil && d.Intent != nfv1.IntentNone && (a == nil || a.Revision != d.Revision || a.Outcome != nfv1.AttemptSucceeded) {
			return fmt.Sprintf("revision %d was not reported to have succeeded", d.Revision)
		}
	case *nfv1.Release:
		if o.Spec.Verification != nfv1.VerificationSkip && !meta.IsStatusConditionTrue(o.Status.Conditions, nfv1.ConditionVerified) {
			return "it is not verified"
		}
	case *nfv1.Rollout:
		for _, w := range o.Status.Waves {
			if w.SoakedAt.IsZero() || w.InFlight > 0 {
				return fmt.Sprintf("wave %s is not over", w.Name)
			}
		}
	}
	return ""
}

// phaseFaults compares the phase of a rollout with its condition Ready.
func phaseFaults(o client.Object, ready metav1.ConditionStatus) []string {
	ro, ok := o.(*nfv1.Rollout)
	if !ok {
		return nil
	}
	var want []metav1.ConditionStatus
	switch ro.Status.Phase {
	case nfv1.RolloutPhaseSucceeded:
		want = []metav1.ConditionStatus{metav1.ConditionTrue}
	case nfv1.RolloutPhaseFailed, nfv1.RolloutPhaseReverted, nfv1.RolloutPhaseCancelled:
		want = []metav1.ConditionStatus{metav1.ConditionFalse}
	case nfv1.RolloutPhasePaused: // by a person, or by failures
		want = []metav1.ConditionStatus{metav1.ConditionUnknown, metav1.ConditionFalse}
	case nfv1.RolloutPhaseBlocked: // False when its release is gone
		want = []metav1.ConditionStatus{metav1.ConditionUnknown, metav1.ConditionFalse}
	default:
		want = []metav1.ConditionStatus{metav1.ConditionUnknown}
	}
	for _, w := range want {
		if w == ready {
			return nil
		}
	}
	return []string{fmt.Sprintf("rollout %s at %s: Ready is %s in phase %s", client.ObjectKeyFromObject(ro), ro.ResourceVersion, ready, ro.Status.Phase)}
}

// used are the namespaces of the running spec.
var used struct {
	sync.Mutex
	namespaces []string
}

func use(namespace string) string {
	used.Lock()
	defer used.Unlock()
	used.namespaces = append(used.namespaces, namespace)
	return namespace
}

// After every spec, every object that it leaves obeys kstatus. Then the objects go, so
// that no manager of a later spec works on them.
var _ = AfterEach(func(ctx SpecContext) {
	used.Lock()
	defer used.Unlock()
	defer func() { used.namespaces = nil }()
	var faults []string
	for _, namespace := range used.namespaces {
		for _, o := range objectsIn(ctx, namespace) {
			faults = append(faults, kstatusFaults(o)...)
		}
	}
	for _, namespace := range used.namespaces {
		deleteObjects(ctx, namespace)
	}
	Expect(faults).To(BeEmpty(), "what kstatus makes of the objects that the spec leaves")
})

// objectsIn are all objects of NixFleet in a namespace.
func objectsIn(ctx context.Context, namespace string) []client.Object {
	GinkgoHelper()
	var out []client.Object
	for _, list := range []client.ObjectList{&nfv1.HostList{}, &nfv1.ReleaseList{}, &nfv1.RolloutList{}} {
		Expect(env.Client.List(ctx, list, client.InNamespace(namespace))).To(Succeed())
		Expect(meta.EachListItem(list, func(o runtime.Object) error {
			out = append(out, o.(client.Object))
			return nil
		})).To(Succeed())
	}
	return out
}

// deleteObjects takes no account of finalizers.
func deleteObjects(ctx context.Context, namespace string) {
	GinkgoHelper()
	for _, o := range []client.Object{&nfv1.Rollout{}, &nfv1.Host{}, &nfv1.Release{}} {
		Expect(env.Client.DeleteAllOf(ctx, o, client.InNamespace(namespace))).To(Succeed())
	}
	for _, o := range objectsIn(ctx, namespace) {
		patch := client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"finalizers":null}}`))
		Expect(client.IgnoreNotFound(env.Client.Patch(ctx, o, patch))).To(Succeed())
	}
}
