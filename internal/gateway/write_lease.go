// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package gateway

import (
	"net/http"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

const (
	maxHolderIdentity = 253
	maxLeaseSeconds   = 24 * 60 * 60
)

// leaseRenewal is the body of a renewal, complete. The parts beside spec may be left out.
type leaseRenewal struct {
	APIVersion string       `json:"apiVersion"`
	Kind       string       `json:"kind"`
	Metadata   identityMeta `json:"metadata"`
	Spec       leaseSpec    `json:"spec"`
}

type leaseSpec struct {
	HolderIdentity       *string           `json:"holderIdentity,omitempty"`
	LeaseDurationSeconds *int32            `json:"leaseDurationSeconds,omitempty"`
	RenewTime            *metav1.MicroTime `json:"renewTime,omitempty"`
}

// rebuildLease turns a renewal into a merge patch, which cannot create the Lease: that
// is the host controller's. renewTime is the host's own clock and may be wrong; the
// host controller looks only at whether it changes.
func rebuildLease(data []byte, req request) (outgoing, *refusal) {
	var renewal leaseRenewal
	if ref := decodeStrict(data, &renewal); ref != nil {
		return outgoing{}, ref
	}
	if ref := checkLease(renewal, req); ref != nil {
		return outgoing{}, ref
	}
	return outgoing{
		verb: http.MethodPatch, path: req.path(), contentType: string(types.MergePatchType),
		parameters: map[string]string{"fieldManager": nfv1.FieldOwnerAgent, "fieldValidation": "Strict"},
		body:       map[string]any{"spec": renewal.Spec},
	}, nil
}

func checkLease(renewal leaseRenewal, req request) *refusal {
	if renewal.APIVersion != "" || renewal.Kind != "" {
		if ref := checkKind(renewal.APIVersion, renewal.Kind, coordinationv1.SchemeGroupVersion.String(), "Lease"); ref != nil {
			return ref
		}
	}
	meta := renewal.Metadata
	if (meta.Name != "" && meta.Name != nfv1.LeaseName(req.host.Name)) || (meta.Namespace != "" && meta.Namespace != req.host.Namespace) {
		return badRequest(causeBody, "the body names another Lease than the path")
	}
	spec := renewal.Spec
	if spec.RenewTime.IsZero() {
		return invalid("spec.renewTime: required")
	}
	if spec.HolderIdentity != nil {
		if ref := checkText("spec.holderIdentity", *spec.HolderIdentity, maxHolderIdentity); ref != nil {
			return ref
		}
	}
	if d := spec.LeaseDurationSeconds; d != nil && (*d < 1 || *d > maxLeaseSeconds) {
		return invalid("spec.leaseDurationSeconds: must be between 1 and %d", maxLeaseSeconds)
	}
	return nil
}
