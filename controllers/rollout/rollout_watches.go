// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package rollout

import (
	"context"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/metrics"
)

// Options are the settings of the controller.
type Options struct {
	// Concurrency is how many rollouts are planned at once. Default: 1. Rollouts of one
	// namespace look at the same hosts, so more gains little.
	Concurrency int

	// OfflineWindow is how long the Lease of a host may stand still before the host
	// counts as offline. It must be the host controller's.
	OfflineWindow time.Duration

	// Writers is how many hosts are written at once. Default: 16.
	Writers int

	// Metrics counts what the controllers do. Default: nothing is counted.
	Metrics *metrics.Recorder
}

// coalesce is how long a report of a host waits for others: one plan answers them all.
const coalesce = 100 * time.Millisecond

// SetupWithManager adds the controllers of rollouts and of overrides to a manager.
func SetupWithManager(mgr ctrl.Manager, o Options) error {
	r := &Reconciler{
		Client:        mgr.GetClient(),
		Live:          mgr.GetAPIReader(),
		Clock:         clock.RealClock{},
		Recorder:      mgr.GetEventRecorder(nfv1.FieldOwnerRollout),
		OfflineWindow: o.OfflineWindow,
		Writers:       o.Writers,
		Metrics:       o.Metrics,
	}
	if r.Writers == 0 {
		r.Writers = defaultWriters
	}
	if err := setupOverrides(mgr, o); err != nil {
		return err
	}
	return ctrl.NewControllerManagedBy(mgr).
		Named("rollout").
		WithOptions(controller.Options{MaxConcurrentReconciles: max(o.Concurrency, 1)}).
		For(&nfv1.Rollout{}, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Watches(&nfv1.Rollout{}, r.enqueue(r.afterRollout), builder.WithPredicates(endsOrVanishes())).
		Watches(&nfv1.Host{}, r.enqueue(r.ofHost)).
		Watches(&nfv1.Release{}, r.enqueue(r.ofRelease)).
		Complete(r)
}

// endsOrVanishes lets through what frees hosts for other rollouts.
func endsOrVanishes() predicate.Predicate {
	phase := func(o client.Object) nfv1.RolloutPhase { return o.(*nfv1.Rollout).Status.Phase }
	return predicate.Funcs{
		CreateFunc:  func(event.CreateEvent) bool { return false },
		GenericFunc: func(event.GenericEvent) bool { return false },
		DeleteFunc:  func(event.DeleteEvent) bool { return true },
		UpdateFunc: func(e event.UpdateEvent) bool {
			return phase(e.ObjectOld).Finished() != phase(e.ObjectNew).Finished() || ending(e.ObjectOld) != ending(e.ObjectNew)
		},
	}
}

func ending(o client.Object) bool {
	return !o.GetDeletionTimestamp().IsZero() || o.(*nfv1.Rollout).Spec.State == nfv1.RolloutStateCancelled
}

// enqueue maps an object to rollouts and adds them after a short while, so that a burst
// of events costs one plan.
func (r *Reconciler) enqueue(mapper func(context.Context, client.Object) []types.NamespacedName) handler.EventHandler {
	add := func(ctx context.Context, o client.Object, q workqueue.TypedRateLimitingInterface[reconcile.Request]) {
		for _, n := range mapper(ctx, o) {
			q.AddAfter(reconcile.Request{NamespacedName: n}, coalesce)
		}
	}
	type queue = workqueue.TypedRateLimitingInterface[reconcile.Request]
	return handler.Funcs{
		CreateFunc: func(ctx context.Context, e event.CreateEvent, q queue) { add(ctx, e.Object, q) },
		DeleteFunc: func(ctx context.Context, e event.DeleteEvent, q queue) { add(ctx, e.Object, q) },
		UpdateFunc: func(ctx context.Context, e event.UpdateEvent, q queue) { add(ctx, e.ObjectNew, q) },
	}
}

// afterRollout wakes the unfinished rollouts of the namespace: hosts may be free now.
func (r *Reconciler) afterRollout(ctx context.Context, o client.Object) []types.NamespacedName {
	return r.unfinished(ctx, o.GetNamespace(), func(ro *nfv1.Rollout) bool { return ro.UID != o.GetUID() })
}

// ofHost wakes every unfinished rollout of the namespace, since each judges the whole
// fleet, and the finished one that the host's assignment is of.
func (r *Reconciler) ofHost(ctx context.Context, o client.Object) []types.NamespacedName {
	names := r.unfinished(ctx, o.GetNamespace(), func(*nfv1.Rollout) bool { return true })
	if d := o.(*nfv1.Host).Spec.Desired; d != nil && d.Rollout != nil {
		names = append(names, types.NamespacedName{Namespace: o.GetNamespace(), Name: d.Rollout.Name})
	}
	return names
}

func (r *Reconciler) ofRelease(ctx context.Context, o client.Object) []types.NamespacedName {
	return r.unfinished(ctx, o.GetNamespace(), func(ro *nfv1.Rollout) bool { return ro.Spec.Release == o.GetName() })
}

func (r *Reconciler) unfinished(ctx context.Context, namespace string, want func(*nfv1.Rollout) bool) []types.NamespacedName {
	var list nfv1.RolloutList
	// The answer comes from the cache and needs no read of own writes; an error means
	// that the cache is not there, and then the manager stops anyway.
	err := r.Client.List(ctx, &list, client.InNamespace(namespace), client.UnsafeDisableDeepCopy, client.DisableReadYourWritesConsistency)
	if err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "List rollouts to wake", "namespace", namespace)
		return nil
	}
	var out []types.NamespacedName
	for i := range list.Items {
		if ro := &list.Items[i]; !ro.Status.Phase.Finished() && want(ro) {
			out = append(out, client.ObjectKeyFromObject(ro))
		}
	}
	return out
}
