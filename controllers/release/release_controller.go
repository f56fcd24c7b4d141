// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package release

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/ssa"
)

// conflictDelay is how long to wait after a write that was decided on an older version of
// a Release: about the time that the watch needs to bring the newer one.
const conflictDelay = 100 * time.Millisecond

// actionVerify is what the controller was doing when it recorded an event.
const actionVerify = "Verify"

// Reconciler keeps the status of Releases.
type Reconciler struct {
	// Client reads from the cache and writes. Its reads must see its own writes.
	Client client.Client

	// Live reads from the API server. It is asked before a release is let go, because a
	// rollout that the cache does not know yet may have claimed it.
	Live client.Reader

	// Clock tells the time that checks are taken at.
	Clock clock.PassiveClock

	// Recorder records events about Releases.
	Recorder events.EventRecorder

	// Checks runs the checks.
	Checks *Checks

	// Pace says when to check again.
	Pace Pace
}

// Reconcile brings the status of one release up to date, has it checked when that is due,
// and lets it go when nobody uses it.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	var rel nfv1.Release
	if err := r.Client.Get(ctx, req.NamespacedName, &rel); err != nil {
		if apierrors.IsNotFound(err) {
			r.Checks.forget(req.NamespacedName)
		}
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	rollouts, err := users(ctx, r.Client, &rel)
	if err != nil {
		return ctrl.Result{}, err
	}
	d := decide(observation{
		release: &rel, now: r.Clock.Now(), pace: r.Pace, rollouts: rollouts, check: r.Checks.state(req.NamespacedName, rel.UID),
	})
	err = r.act(ctx, &rel, d)
	switch {
	case apierrors.IsConflict(err):
		return ctrl.Result{RequeueAfter: conflictDelay}, nil
	case apierrors.IsNotFound(err):
		return ctrl.Result{}, nil // Deleted since; the watch will say so.
	case err != nil:
		return ctrl.Result{}, err
	}
	return ctrl.Result{RequeueAfter: d.recheckAfter}, nil
}

// act carries the decision out. The outcome of a check is forgotten only after it is
// written, so that a failed write loses nothing.
func (r *Reconciler) act(ctx context.Context, rel *nfv1.Release, d decision) error {
	key, uid := client.ObjectKeyFromObject(rel), rel.UID
	if err := r.writeStatus(ctx, rel, d.status); err != nil {
		return err
	}
	if d.settled {
		r.Checks.settle(key, uid, d.retries, d.retryAt)
	}
	if d.begin != nil {
		r.Checks.begin(key, uid, *d.begin)
	}
	if d.free && controllerutil.ContainsFinalizer(rel, nfv1.FinalizerInUse) {
		return r.release(ctx, rel)
	}
	return nil
}

func (r *Reconciler) writeStatus(ctx context.Context, rel *nfv1.Release, status nfv1.ReleaseStatus) error {
	if equality.Semantic.DeepEqual(rel.Status, status) {
		return nil
	}
	before := meta.FindStatusCondition(rel.Status.Conditions, nfv1.ConditionVerified)
	if err := ssa.Status(ctx, r.Client, nfv1.FieldOwnerRelease, rel, ssa.SameVersion, &status); err != nil {
		return err
	}
	after := meta.FindStatusCondition(status.Conditions, nfv1.ConditionVerified)
	if before != nil && before.Status == after.Status && before.Reason == after.Reason {
		return nil
	}
	kind := corev1.EventTypeNormal
	if after.Status == metav1.ConditionFalse || after.Reason == nfv1.ReasonCacheUnreachable || after.Reason == nfv1.ReasonInternalError {
		kind = corev1.EventTypeWarning
	}
	r.Recorder.Eventf(rel, nil, kind, after.Reason, actionVerify, "%s", after.Message)
	ctrl.LoggerFrom(ctx).Info("Verdict", "verified", after.Status, "reason", after.Reason, "message", after.Message)
	return nil
}

// release takes the finalizer away if the API server, too, knows of nobody who needs it.
func (r *Reconciler) release(ctx context.Context, rel *nfv1.Release) error {
	rollouts, err := users(ctx, r.Live, rel)
	if err != nil {
		return err
	}
	if len(rollouts) > 0 {
		return nil // The watch brings them, and what becomes of them.
	}
	before := rel.DeepCopy()
	controllerutil.RemoveFinalizer(rel, nfv1.FinalizerInUse)
	// Not an apply: that could not remove what the rollout controller applied.
	patch := client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})
	if err := r.Client.Patch(ctx, rel, patch, client.FieldOwner(nfv1.FieldOwnerRelease)); err != nil {
		return fmt.Errorf("remove finalizer of Release %s: %w", client.ObjectKeyFromObject(rel), err)
	}
	return nil
}

// users are the unfinished rollouts that use the release or are about to: those that name
// it and have not pinned another one of that name.
func users(ctx context.Context, reader client.Reader, rel *nfv1.Release) ([]*nfv1.Rollout, error) {
	var rollouts nfv1.RolloutList
	if err := reader.List(ctx, &rollouts, client.InNamespace(rel.Namespace)); err != nil {
		return nil, fmt.Errorf("list the rollouts that use Release %s: %w", client.ObjectKeyFromObject(rel), err)
	}
	var out []*nfv1.Rollout
	for i := range rollouts.Items {
		ro := &rollouts.Items[i]
		pinned := ro.Status.ReleaseUID
		if ro.Spec.Release == rel.Name && !ro.Status.Phase.Finished() && (pinned == "" || pinned == rel.UID) {
			out = append(out, ro)
		}
	}
	return out, nil
}
