// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package rollout

import (
	"context"
	"errors"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/rollout"
	"github.com/nixfleet/nixfleet/internal/ssa"
)

const defaultWriters = 16

// apply carries a decision out: first the claim and the status, which say what is about
// to happen, then the assignments. A crash after any of the writes leaves a state from
// which the planner comes to the rest of the same decision.
func (r *Reconciler) apply(ctx context.Context, ro *nfv1.Rollout, s rollout.Snapshot, d rollout.Decision) error {
	begins := beginsWith(s, d)
	if d.HoldDeletion && ro.DeletionTimestamp.IsZero() && !controllerutil.ContainsFinalizer(ro, nfv1.FinalizerHosts) {
		err := ssa.Finalizers(ctx, r.Client, nfv1.FieldOwnerRollout, ro, ssa.SameVersion, nfv1.FinalizerHosts)
		if err = r.wrote(ro, err); err != nil {
			return err
		}
	}
	if err := r.applyStatus(ctx, ro, s, d); err != nil {
		return err
	}
	if d.UseRelease {
		if err := r.claimRelease(ctx, s.Release); err != nil {
			return err
		}
	}
	accepted, err := r.assign(ctx, d.Assignments)
	if begins && accepted > 0 {
		r.Metrics.FirstAssigned(r.Clock.Since(ro.CreationTimestamp.Time))
	}
	if err != nil {
		return err
	}
	if !d.HoldDeletion && controllerutil.ContainsFinalizer(ro, nfv1.FinalizerHosts) {
		err := ssa.Finalizers(ctx, r.Client, nfv1.FieldOwnerRollout, ro, ssa.SameVersion)
		return client.IgnoreNotFound(r.wrote(ro, err))
	}
	return nil
}

// wrote counts a write and passes its error on.
func (r *Reconciler) wrote(o client.Object, err error) error {
	r.Metrics.Wrote(o, err)
	return err
}

func (r *Reconciler) applyStatus(ctx context.Context, ro *nfv1.Rollout, s rollout.Snapshot, d rollout.Decision) error {
	before := ro.Status.DeepCopy()
	if equality.Semantic.DeepEqual(before, &d.Status) {
		return nil
	}
	err := ssa.Status(ctx, r.Client, nfv1.FieldOwnerRollout, ro, ssa.SameVersion, &d.Status)
	if err = r.wrote(ro, err); err != nil {
		return err
	}
	r.recordProgress(ro, before, s, d)
	return nil
}

// claimRelease makes sure that the release stays while the rollout needs it. A release
// that is already being deleted cannot be claimed: the API server refuses, and the next
// plan sees it gone.
func (r *Reconciler) claimRelease(ctx context.Context, rel *nfv1.Release) error {
	if rel == nil || controllerutil.ContainsFinalizer(rel, nfv1.FinalizerInUse) {
		return nil
	}
	err := ssa.Finalizers(ctx, r.Client, nfv1.FieldOwnerRollout, rel.DeepCopy(), ssa.SameObject, nfv1.FinalizerInUse)
	return r.wrote(rel, err)
}

// assign writes the assignments, several at once. A host that was written or deleted in
// the meantime is left for the next plan; it does not keep the others waiting. accepted is
// how many of the writes were.
func (r *Reconciler) assign(ctx context.Context, assignments []rollout.Assignment) (accepted int, err error) {
	var g errgroup.Group
	g.SetLimit(max(r.Writers, 1))
	errs := make([]error, len(assignments))
	for i, a := range assignments {
		g.Go(func() error {
			host := a.Host.DeepCopy()
			err := ssa.SpecField(ctx, r.Client, nfv1.FieldOwnerRollout, host, ssa.SameVersion, "desired", &a.Desired)
			errs[i] = r.wrote(host, err)
			if err == nil {
				r.Metrics.Assigned(a.Desired.Intent)
			}
			return nil
		})
	}
	_ = g.Wait() // the functions return no error, they store it
	for _, err := range errs {
		if err == nil {
			accepted++
		}
	}
	return accepted, worst(errs)
}

// worst is an error that is no conflict if there is one, else a conflict, else nil.
func worst(errs []error) error {
	var conflict error
	var others []error
	for _, err := range errs {
		switch {
		case err == nil:
		case apierrors.IsConflict(err), apierrors.IsNotFound(err):
			conflict = err
		default:
			others = append(others, err)
		}
	}
	if len(others) > 0 {
		return errors.Join(others...)
	}
	if apierrors.IsNotFound(conflict) {
		return nil // the watch tells of the deletion
	}
	return conflict
}
