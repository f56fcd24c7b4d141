// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package gateway

import (
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

// ReportingController is the reportingController of the events of agents.
const ReportingController = nfv1.GroupName + "/agent"

// Bounds of the texts of an event; those of the API server.
const (
	maxEventReason = 128
	maxEventAction = 128
	maxEventNote   = 1024
)

// hostEvent is what is taken from an event. Unlike those of other bodies, its unknown
// fields are dropped: clients fill in many that the gateway sets itself.
type hostEvent struct {
	APIVersion string                 `json:"apiVersion"`
	Kind       string                 `json:"kind"`
	Metadata   identityMeta           `json:"metadata"`
	Regarding  corev1.ObjectReference `json:"regarding"`
	Type       string                 `json:"type"`
	Reason     string                 `json:"reason"`
	Action     string                 `json:"action"`
	Note       string                 `json:"note"`
}

// readEvent reads an event to learn which Host it is about: the path of events names
// the namespace only.
func readEvent(c *call) (*hostEvent, *refusal) {
	data, ref := readBody(c, maxEventBody, "application/json")
	if ref != nil {
		return nil, ref
	}
	return decodeEvent(data, c.request.host.Namespace)
}

func decodeEvent(data []byte, namespace string) (*hostEvent, *refusal) {
	var event hostEvent
	if ref := decodeLenient(data, &event); ref != nil {
		return nil, ref
	}
	if ref := checkKind(event.APIVersion, event.Kind, eventsv1.SchemeGroupVersion.String(), "Event"); ref != nil {
		return nil, ref
	}
	about := event.Regarding
	if about.APIVersion != nfv1.GroupVersion.String() || about.Kind != "Host" || !validHostName(about.Name) || about.FieldPath != "" {
		return nil, forbidden(causeNotAllowed, "a host may create events about its own Host only: regarding must be a Host of %s", nfv1.GroupVersion)
	}
	if about.Namespace != namespace || (event.Metadata.Namespace != "" && event.Metadata.Namespace != namespace) {
		return nil, forbidden(causeNotAllowed, "the event, the Host that it regards and the path must be of one namespace")
	}
	return &event, nil
}

// eventWrite turns an event of a host into the one that is created. It is dated by the
// gateway's clock, because the host's may be wrong.
func eventWrite(event *hostEvent, host *nfv1.Host, now time.Time) (outgoing, *refusal) {
	if ref := checkEvent(event, host); ref != nil {
		return outgoing{}, ref
	}
	req := request{action: actionCreateEvent, host: keyOf(host)}
	return outgoing{
		verb: http.MethodPost, path: req.path(), contentType: runtime.ContentTypeJSON,
		parameters: map[string]string{"fieldManager": nfv1.FieldOwnerAgent, "fieldValidation": "Strict"},
		body: &eventsv1.Event{
			TypeMeta:            metav1.TypeMeta{APIVersion: eventsv1.SchemeGroupVersion.String(), Kind: "Event"},
			ObjectMeta:          metav1.ObjectMeta{GenerateName: host.Name + "-", Namespace: host.Namespace},
			EventTime:           metav1.NewMicroTime(now),
			ReportingController: ReportingController,
			ReportingInstance:   reportingInstance(host.Name),
			Type:                event.Type,
			Reason:              event.Reason,
			Action:              event.Action,
			Note:                event.Note,
			Regarding: corev1.ObjectReference{
				APIVersion: nfv1.GroupVersion.String(), Kind: "Host",
				Namespace: host.Namespace, Name: host.Name, UID: host.UID,
			},
		},
	}, nil
}

func checkEvent(event *hostEvent, host *nfv1.Host) *refusal {
	if ref := checkUID(event.Regarding.UID, host); ref != nil {
		return ref
	}
	if event.Type != corev1.EventTypeNormal && event.Type != corev1.EventTypeWarning {
		return invalid("type: must be %s or %s", corev1.EventTypeNormal, corev1.EventTypeWarning)
	}
	if ref := checkText("reason", event.Reason, maxEventReason); ref != nil {
		return ref
	}
	if ref := checkText("action", event.Action, maxEventAction); ref != nil {
		return ref
	}
	if len(event.Note) > maxEventNote {
		return invalid("note: may not be longer than %d bytes", maxEventNote)
	}
	return nil
}

// reportingInstance is the host's name, cut to what the API server takes: 128 bytes,
// where a Host's name may have 200.
func reportingInstance(host string) string {
	const limit = 128
	if len(host) > limit {
		return host[:limit]
	}
	return host
}
