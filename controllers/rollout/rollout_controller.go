// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package rollout

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/metrics"
	"github.com/nixfleet/nixfleet/internal/rollout"
)

// Reconciler moves hosts to releases as Rollouts ask.
type Reconciler struct {
	// Client reads from the cache and writes. Its reads must see its own writes: a
	// decision on a stale snapshot could assign more hosts than a wave may have.
	Client client.Client

	// Live reads from the API server, for objects that the cache may not know yet.
	Live client.Reader

	// Clock tells the time that decisions are taken at.
	Clock clock.PassiveClock

	// Recorder records events about Rollouts and Hosts.
	Recorder events.EventRecorder

	// Metrics counts what is done; nil counts nothing.
	Metrics *metrics.Recorder

	// OfflineWindow is how long the Lease of a host may stand still before the host
	// counts as offline.
	OfflineWindow time.Duration

	// Writers is how many hosts are written at once. Default: 16.
	Writers int
}

// Reconcile plans one rollout and carries the decision out.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	var ro nfv1.Rollout
	if err := r.Client.Get(ctx, req.NamespacedName, &ro); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	snapshot, err := r.snapshot(ctx, &ro)
	if err != nil {
		return ctrl.Result{}, fmt.Errorf("gather what rollout %s rests on: %w", req, err)
	}
	began := r.Clock.Now()
	decision := rollout.Plan(snapshot, began)
	r.Metrics.Planned(r.Clock.Since(began))
	r.log(ctx, &ro, decision)
	err = r.apply(ctx, &ro, snapshot, decision)
	switch {
	case apierrors.IsConflict(err):
		// Somebody wrote an object between the snapshot and the write. The watch brings
		// the new state; plan on that.
		return ctrl.Result{RequeueAfter: conflictDelay}, nil
	case err != nil:
		return ctrl.Result{}, err
	}
	return ctrl.Result{RequeueAfter: decision.RecheckAfter}, nil
}

// conflictDelay is how long to wait after a write that was decided on an older version
// of an object: about the time that the watch needs to bring the newer one.
const conflictDelay = 100 * time.Millisecond

func (r *Reconciler) log(ctx context.Context, ro *nfv1.Rollout, d rollout.Decision) {
	l := ctrl.LoggerFrom(ctx)
	if d.Status.Phase != ro.Status.Phase || d.Status.Message != ro.Status.Message {
		l.Info("Planned", "phase", d.Status.Phase, "reason", d.Notes[0].Reason, "message", d.Status.Message)
	}
	for _, a := range d.Assignments {
		l.Info("Assigning", "host", a.Host.Name, "intent", a.Desired.Intent, "wave", a.Desired.Wave,
			"revision", a.Desired.Revision, "storePath", a.Desired.StorePath)
	}
	for _, n := range d.Notes[1:] {
		l.V(1).Info("Held", "host", n.Host, "wave", n.Wave, "reason", n.Reason, "message", n.Message)
	}
}
