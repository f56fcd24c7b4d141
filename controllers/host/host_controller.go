// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package host

import (
	"context"
	"fmt"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	clientevents "k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/events"
)

// Actions of events: what the controller was doing.
const (
	actionObserve   = "ObserveLease"
	actionCheckKeys = "CheckKeys"
)

// DefaultOfflineAfter is three renewals of a Lease: one may be lost, and one late.
const DefaultOfflineAfter = 180 * time.Second

// conflictDelay is how long to wait after a write that was decided on an older version
// of a Host: about the time that the watch needs to bring the newer one.
const conflictDelay = 100 * time.Millisecond

// Reconciler keeps the Lease and the condition Online of Hosts. It must not be copied,
// and one process runs one.
type Reconciler struct {
	// Client reads from the cache and writes.
	Client client.Client
	// Clock is what renewals are timed by.
	Clock clock.PassiveClock
	// Recorder records events about Hosts.
	Recorder clientevents.EventRecorder
	// OfflineAfter is how long a Lease may stand still before its host counts as
	// offline.
	OfflineAfter time.Duration

	keys keyring

	mu        sync.Mutex
	sightings map[types.NamespacedName]sighting
}

// Options says how the controller runs.
type Options struct {
	// OfflineAfter is how long a Lease may stand still before its host counts as
	// offline. Default: DefaultOfflineAfter.
	OfflineAfter time.Duration
	// Concurrency is how many Hosts are reconciled at once. Default: 1.
	Concurrency int
}

// SetupWithManager adds the controller to a manager, whose cache has CacheOptions.
func SetupWithManager(mgr ctrl.Manager, o Options) error {
	r := &Reconciler{
		Client: mgr.GetClient(), Clock: clock.RealClock{}, Recorder: mgr.GetEventRecorder(nfv1.FieldOwnerHost),
		OfflineAfter: o.OfflineAfter,
	}
	if r.OfflineAfter == 0 {
		r.OfflineAfter = DefaultOfflineAfter
	}
	return ctrl.NewControllerManagedBy(mgr).
		Named("host").
		WithOptions(controller.Options{MaxConcurrentReconciles: max(o.Concurrency, 1)}).
		For(&nfv1.Host{}).
		Owns(&coordinationv1.Lease{}).
		Complete(r)
}

// CacheOptions restricts the manager's cache of Leases to those of hosts: a cluster has
// others, which change every few seconds.
func CacheOptions() map[client.Object]cache.ByObject {
	return map[client.Object]cache.ByObject{
		&coordinationv1.Lease{}: {Label: labels.SelectorFromSet(leaseLabels())},
	}
}

// Reconcile brings one Host's Lease and conditions up to date.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	var host nfv1.Host
	if err := r.Client.Get(ctx, req.NamespacedName, &host); err != nil {
		if apierrors.IsNotFound(err) {
			r.forget(req.NamespacedName)
			r.keys.forget(req.NamespacedName)
		}
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if !host.DeletionTimestamp.IsZero() {
		return ctrl.Result{}, nil // The Lease goes with its owner.
	}
	if err := r.checkKeys(ctx, &host); err != nil {
		return ctrl.Result{}, err
	}
	result, err := r.reconcile(ctx, &host)
	switch {
	case apierrors.IsConflict(err):
		return ctrl.Result{RequeueAfter: conflictDelay}, nil
	case apierrors.IsNotFound(err):
		return ctrl.Result{}, nil // Deleted since; the watch will say so.
	default:
		return result, err
	}
}

func (r *Reconciler) reconcile(ctx context.Context, host *nfv1.Host) (ctrl.Result, error) {
	if !hasAgent(host) {
		r.forget(client.ObjectKeyFromObject(host))
		if err := r.deleteLease(ctx, host); err != nil {
			return ctrl.Result{}, err
		}
		return ctrl.Result{}, r.retire(ctx, host)
	}
	lease, err := r.ensureLease(ctx, host)
	if err != nil {
		return ctrl.Result{}, err
	}
	now := r.Clock.Now()
	seen := r.look(client.ObjectKeyFromObject(host), lease, now)
	verdict, after := online(now, r.OfflineAfter, seen, onlineOf(host))
	if err := r.report(ctx, host, verdict); err != nil {
		return ctrl.Result{}, err
	}
	return ctrl.Result{RequeueAfter: after}, nil
}

// hasAgent says whether a host of this lifecycle has an agent that may be heard of.
func hasAgent(host *nfv1.Host) bool {
	switch host.Spec.Lifecycle {
	case nfv1.LifecyclePending, nfv1.LifecycleDecommissioned:
		return false
	default:
		return true
	}
}

// look remembers what a Lease says now.
func (r *Reconciler) look(key types.NamespacedName, lease *coordinationv1.Lease, now time.Time) sighting {
	r.mu.Lock()
	defer r.mu.Unlock()
	var before *sighting
	if s, found := r.sightings[key]; found {
		before = &s
	}
	seen := observe(before, lease, now)
	if r.sightings == nil {
		r.sightings = map[types.NamespacedName]sighting{}
	}
	r.sightings[key] = seen
	return seen
}

func (r *Reconciler) forget(key types.NamespacedName) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.sightings, key)
}

// checkKeys warns about keys that cannot be read and about keys that another Host pins
// too, once for each change of the keys. Neither is refused: SSH host keys are public,
// so anyone can pin anyone's, and a refusal would let them lock a host out.
func (r *Reconciler) checkKeys(ctx context.Context, host *nfv1.Host) error {
	key := client.ObjectKeyFromObject(host)
	var lines []string
	if host.Spec.Lifecycle != nfv1.LifecycleDecommissioned { // The key may live on in another Host.
		lines = host.Spec.Identity.PublicKeys
	}
	found := r.keys.update(key, lines)
	if found.invalid != nil {
		r.Recorder.Eventf(host, nil, corev1.EventTypeWarning, events.ReasonInvalidKey, actionCheckKeys,
			"spec.identity.publicKeys: %s; this key lets nobody in", limit(found.invalid.Error()))
	}
	for _, shared := range found.shared {
		var other nfv1.Host
		if err := r.Client.Get(ctx, shared.host, &other); err != nil {
			if apierrors.IsNotFound(err) {
				continue
			}
			r.keys.forget(key) // To find it again at the next try.
			return fmt.Errorf("read Host %s, which pins the key of %s: %w", shared.host, key, err)
		}
		r.warnShared(host, &other, shared.fingerprint)
		r.warnShared(&other, host, shared.fingerprint)
	}
	return nil
}

func (r *Reconciler) warnShared(host, other *nfv1.Host, fingerprint string) {
	r.Recorder.Eventf(host, other, corev1.EventTypeWarning, events.ReasonSharedKey, actionCheckKeys,
		"the key %s is also pinned by Host %s: whoever holds it can act for both", fingerprint, client.ObjectKeyFromObject(other))
}

// limit keeps a text within what an event can carry.
func limit(s string) string {
	const most = 800
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}
