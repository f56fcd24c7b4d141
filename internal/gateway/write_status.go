// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package gateway

import (
	"net/http"

	"k8s.io/apimachinery/pkg/types"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

// statusReport is the body of a report, complete: nothing else is accepted.
type statusReport struct {
	APIVersion string           `json:"apiVersion"`
	Kind       string           `json:"kind"`
	Metadata   identityMeta     `json:"metadata"`
	Status     *nfv1.HostStatus `json:"status"`
}

// rebuildStatus turns a host's report into the server-side apply of it. That the status
// passes through its Go type leaves only fields that exist.
func rebuildStatus(data []byte, req request, host *nfv1.Host) (outgoing, *refusal) {
	var report statusReport
	if ref := decodeStrict(data, &report); ref != nil {
		return outgoing{}, ref
	}
	if ref := checkKind(report.APIVersion, report.Kind, nfv1.GroupVersion.String(), "Host"); ref != nil {
		return outgoing{}, ref
	}
	named := types.NamespacedName{Namespace: report.Metadata.Namespace, Name: report.Metadata.Name}
	if named != req.host {
		return outgoing{}, badRequest(causeBody, "the body is about Host %s, the path about %s", quote(named.String()), req.host)
	}
	if ref := checkUID(report.Metadata.UID, host); ref != nil {
		return outgoing{}, ref
	}
	if report.Status == nil {
		// An apply without it would remove everything that was reported before.
		return outgoing{}, invalid("status: required")
	}
	for _, condition := range report.Status.Conditions {
		if condition.Type == nfv1.ConditionOnline {
			return outgoing{}, invalid("status.conditions: the condition %s is the host controller's; leave it out of the report", nfv1.ConditionOnline)
		}
	}
	return outgoing{
		verb: http.MethodPatch, path: req.path(), contentType: string(types.ApplyPatchType),
		parameters: map[string]string{"fieldManager": nfv1.FieldOwnerAgent, "force": "true", "fieldValidation": "Strict"},
		body:       report,
	}, nil
}
