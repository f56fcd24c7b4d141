// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package rollout

import (
	"context"
	"fmt"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	clientevents "k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/events"
	"github.com/nixfleet/nixfleet/internal/metrics"
	"github.com/nixfleet/nixfleet/internal/rollout"
	"github.com/nixfleet/nixfleet/internal/ssa"
)

// actionOverride is what the controller was doing when it recorded an event.
const actionOverride = "Override"

// OverrideReconciler carries spec.override of Hosts out. It writes spec.desired as the
// Reconciler of rollouts does, and under the same precondition, so that of two that
// decide at the same time only one writes.
type OverrideReconciler struct {
	// Client reads from the cache and writes.
	Client client.Client

	// Live reads from the API server. It is asked before anything is written, because a
	// rollout that the cache does not know yet may have the host.
	Live client.Reader

	// Clock tells the time that assignments are made at.
	Clock clock.PassiveClock

	// Recorder records events about Hosts.
	Recorder clientevents.EventRecorder

	// Metrics counts what is done; nil counts nothing.
	Metrics *metrics.Recorder

	waits sync.Map // types.NamespacedName to wait: what has been recorded
}

// Reconcile carries the override of one host out, if it was not yet.
func (r *OverrideReconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	var host nfv1.Host
	if err := r.Client.Get(ctx, req.NamespacedName, &host); err != nil {
		r.waits.Delete(req.NamespacedName)
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if !rollout.OverridePending(&host) {
		r.waits.Delete(req.NamespacedName)
		return ctrl.Result{}, nil
	}
	rollouts, err := r.rollouts(ctx, host.Namespace)
	if err != nil {
		return ctrl.Result{}, err
	}
	d := rollout.PlanOverride(&host, rollouts, r.Clock.Now())
	if d.HeldBy != nil {
		r.recordWait(&host, d.HeldBy)
		return ctrl.Result{}, nil // the watch tells of its end
	}
	r.waits.Delete(req.NamespacedName)
	return r.carryOut(ctx, &host, d.Assignment)
}

// wait is an override that waits for a rollout.
type wait struct {
	host, rollout types.UID
	override      string
}

// recordWait records that an override waits: once, not with each report of the host.
func (r *OverrideReconciler) recordWait(host *nfv1.Host, holder *nfv1.Rollout) {
	now := wait{host: host.UID, rollout: holder.UID, override: host.Spec.Override.ID}
	if before, known := r.waits.Swap(client.ObjectKeyFromObject(host), now); known && before == now {
		return
	}
	r.Recorder.Eventf(host, holder, corev1.EventTypeNormal, events.ReasonOverrideWaits, actionOverride,
		"override %s waits: rollout %s has the host; it is carried out when that ends", host.Spec.Override.ID, holder.Name)
}

func (r *OverrideReconciler) rollouts(ctx context.Context, namespace string) ([]*nfv1.Rollout, error) {
	var list nfv1.RolloutList
	if err := r.Live.List(ctx, &list, client.InNamespace(namespace)); err != nil {
		return nil, fmt.Errorf("list the rollouts that may have the host: %w", err)
	}
	out := make([]*nfv1.Rollout, 0, len(list.Items))
	for i := range list.Items {
		out = append(out, &list.Items[i])
	}
	return out, nil
}

func (r *OverrideReconciler) carryOut(ctx context.Context, host *nfv1.Host, a *rollout.Assignment) (ctrl.Result, error) {
	err := ssa.SpecField(ctx, r.Client, nfv1.FieldOwnerRollout, host.DeepCopy(), ssa.SameVersion, "desired", &a.Desired)
	r.Metrics.Wrote(host, err)
	switch {
	case apierrors.IsNotFound(err):
		return ctrl.Result{}, nil
	case apierrors.IsConflict(err):
		return ctrl.Result{RequeueAfter: conflictDelay}, nil
	case err != nil:
		return ctrl.Result{}, fmt.Errorf("carry out override %s: %w", a.Desired.OverrideID, err)
	}
	r.Metrics.Assigned(a.Desired.Intent)
	what := "the assignment is dropped"
	if a.Desired.StorePath != "" {
		what = fmt.Sprintf("%s counts as what the host is meant to run", a.Desired.StorePath)
	}
	ctrl.LoggerFrom(ctx).Info("Carried out an override", "id", a.Desired.OverrideID, "revision", a.Desired.Revision, "storePath", a.Desired.StorePath)
	r.Recorder.Eventf(host, nil, corev1.EventTypeNormal, events.ReasonOverrideCarriedOut, actionOverride, "override %s: %s", a.Desired.OverrideID, what)
	return ctrl.Result{}, nil
}

// setupOverrides adds the controller to a manager.
func setupOverrides(mgr ctrl.Manager, o Options) error {
	r := &OverrideReconciler{
		Client: mgr.GetClient(), Live: mgr.GetAPIReader(), Clock: clock.RealClock{},
		Recorder: mgr.GetEventRecorder(nfv1.FieldOwnerRollout), Metrics: o.Metrics,
	}
	pending := predicate.NewPredicateFuncs(func(o client.Object) bool { return rollout.OverridePending(o.(*nfv1.Host)) })
	return ctrl.NewControllerManagedBy(mgr).
		Named("override").
		For(&nfv1.Host{}, builder.WithPredicates(pending)).
		Watches(&nfv1.Rollout{}, handler.EnqueueRequestsFromMapFunc(r.waiting), builder.WithPredicates(endsOrVanishes())).
		Complete(r)
}

// waiting are the hosts of the namespace whose override waits for a rollout to end.
func (r *OverrideReconciler) waiting(ctx context.Context, o client.Object) []reconcile.Request {
	var hosts nfv1.HostList
	if err := r.Client.List(ctx, &hosts, client.InNamespace(o.GetNamespace()), client.UnsafeDisableDeepCopy); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "List hosts whose override may wait", "namespace", o.GetNamespace())
		return nil
	}
	var out []reconcile.Request
	for i := range hosts.Items {
		if h := &hosts.Items[i]; rollout.OverridePending(h) {
			out = append(out, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(h)})
		}
	}
	return out
}
