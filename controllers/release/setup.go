// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package release

import (
	"context"
	"fmt"
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
	"sigs.k8s.io/controller-runtime/pkg/source"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/nix/binarycache"
)

const (
	defaultChecks       = 2
	defaultCheckTimeout = 15 * time.Minute
)

// Options are the settings of the controller.
type Options struct {
	// Concurrency is how many releases are reconciled at once. Default: 1.
	Concurrency int

	// Checks is how many releases are checked at once. Default: 2.
	Checks int

	// CheckTimeout is how long one check may take. Default: 15 min.
	CheckTimeout time.Duration

	// Pace says when to check again. Default: DefaultPace.
	Pace Pace

	// Verifier checks closures. Default: a binarycache.Client with its defaults.
	Verifier Verifier
}

func (o Options) withDefaults() Options {
	if o.Concurrency <= 0 {
		o.Concurrency = 1
	}
	if o.Checks <= 0 {
		o.Checks = defaultChecks
	}
	if o.CheckTimeout <= 0 {
		o.CheckTimeout = defaultCheckTimeout
	}
	if o.Pace == (Pace{}) {
		o.Pace = DefaultPace()
	}
	if o.Verifier == nil {
		o.Verifier = binarycache.NewClient()
	}
	return o
}

// SetupWithManager adds the controller to a manager.
func SetupWithManager(mgr ctrl.Manager, o Options) error {
	o = o.withDefaults()
	r := &Reconciler{
		Client: mgr.GetClient(), Live: mgr.GetAPIReader(), Clock: clock.RealClock{},
		Recorder: mgr.GetEventRecorder(nfv1.FieldOwnerRelease),
		Checks:   NewChecks(o.Verifier, o.Checks, o.CheckTimeout),
		Pace:     o.Pace,
	}
	if err := mgr.Add(r.Checks); err != nil {
		return fmt.Errorf("add the checks of releases to the manager: %w", err)
	}
	return ctrl.NewControllerManagedBy(mgr).
		Named("release").
		WithOptions(controller.Options{MaxConcurrentReconciles: o.Concurrency}).
		For(&nfv1.Release{}, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Watches(&nfv1.Rollout{}, handler.EnqueueRequestsFromMapFunc(ofRollout), builder.WithPredicates(rolloutMatters())).
		WatchesRawSource(source.TypedChannel(r.Checks.Done(), handler.TypedFuncs[types.NamespacedName, reconcile.Request]{GenericFunc: enqueue})).
		Complete(r)
}

func enqueue(
	_ context.Context, e event.TypedGenericEvent[types.NamespacedName], q workqueue.TypedRateLimitingInterface[reconcile.Request],
) {
	q.Add(reconcile.Request{NamespacedName: e.Object})
}

func ofRollout(_ context.Context, o client.Object) []reconcile.Request {
	name := o.(*nfv1.Rollout).Spec.Release
	return []reconcile.Request{{NamespacedName: types.NamespacedName{Namespace: o.GetNamespace(), Name: name}}}
}

// rolloutMatters lets through what changes who uses a release, and the points at which a
// rollout needs to know that it is still good.
func rolloutMatters() predicate.Predicate {
	return predicate.TypedFuncs[client.Object]{
		UpdateFunc: func(e event.UpdateEvent) bool {
			before, after := asRollout(e.ObjectOld), asRollout(e.ObjectNew)
			return before.Status.ReleaseUID != after.Status.ReleaseUID ||
				before.Status.Phase.Finished() != after.Status.Phase.Finished() ||
				!lastAsked([]*nfv1.Rollout{before}).Equal(lastAsked([]*nfv1.Rollout{after}))
		},
	}
}

func asRollout(o client.Object) *nfv1.Rollout {
	return o.(*nfv1.Rollout)
}
