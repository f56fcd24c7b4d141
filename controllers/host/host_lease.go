// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package host

import (
	"context"
	"encoding/json"
	"fmt"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

// LeaseLabel marks the Leases of hosts. Its value is empty: a label's value is too short
// for a Host's name.
const LeaseLabel = nfv1.GroupName + "/host"

func leaseLabels() map[string]string { return map[string]string{LeaseLabel: ""} }

// ensureLease returns the Lease of a Host, made if need be. Agents may only patch it.
func (r *Reconciler) ensureLease(ctx context.Context, host *nfv1.Host) (*coordinationv1.Lease, error) {
	lease, err := r.getLease(ctx, host)
	if err != nil {
		return nil, err
	}
	if lease != nil && metav1.IsControlledBy(lease, host) {
		return lease, nil
	}
	if lease != nil {
		// That of a Host which had this name before. It would be collected in time; the
		// new Host's agent should not have to wait for that.
		if err := r.remove(ctx, lease); err != nil {
			return nil, err
		}
	}
	return r.applyLease(ctx, host)
}

func (r *Reconciler) deleteLease(ctx context.Context, host *nfv1.Host) error {
	lease, err := r.getLease(ctx, host)
	if err != nil || lease == nil {
		return err
	}
	return r.remove(ctx, lease)
}

// getLease returns nil if there is none.
func (r *Reconciler) getLease(ctx context.Context, host *nfv1.Host) (*coordinationv1.Lease, error) {
	lease := &coordinationv1.Lease{}
	key := types.NamespacedName{Namespace: host.Namespace, Name: nfv1.LeaseName(host.Name)}
	if err := r.Client.Get(ctx, key, lease); err != nil {
		if apierrors.IsNotFound(err) {
			return nil, nil //nolint:nilnil // Absence is an answer.
		}
		return nil, fmt.Errorf("read Lease %s: %w", key, err)
	}
	return lease, nil
}

func (r *Reconciler) remove(ctx context.Context, lease *coordinationv1.Lease) error {
	err := r.Client.Delete(ctx, lease, client.Preconditions{UID: ptr.To(lease.UID)})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete Lease %s: %w", client.ObjectKeyFromObject(lease), err)
	}
	return nil
}

// applyLease makes the Lease. It is a server-side apply so that a Lease which is there
// already, without the label and so not in the cache, is taken over.
func (r *Reconciler) applyLease(ctx context.Context, host *nfv1.Host) (*coordinationv1.Lease, error) {
	lease := &coordinationv1.Lease{
		TypeMeta: metav1.TypeMeta{APIVersion: coordinationv1.SchemeGroupVersion.String(), Kind: "Lease"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: host.Namespace, Name: nfv1.LeaseName(host.Name), Labels: leaseLabels(),
			OwnerReferences: []metav1.OwnerReference{{
				APIVersion: nfv1.GroupVersion.String(), Kind: "Host", Name: host.Name, UID: host.UID, Controller: ptr.To(true),
			}},
		},
	}
	data, err := json.Marshal(lease)
	if err != nil {
		return nil, fmt.Errorf("encode Lease of Host %s: %w", client.ObjectKeyFromObject(host), err)
	}
	err = r.Client.Patch(ctx, lease, client.RawPatch(types.ApplyPatchType, data), client.FieldOwner(nfv1.FieldOwnerHost), client.ForceOwnership)
	if err != nil {
		return nil, fmt.Errorf("make Lease %s: %w", client.ObjectKeyFromObject(lease), err)
	}
	return lease, nil
}
