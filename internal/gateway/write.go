// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package gateway

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	kjson "sigs.k8s.io/json"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

// maxBody bounds what a host may send: twice the size that a Host is meant to stay
// below, several times over. maxEventBody is smaller, because an event has to be read
// before it is known whom it is about.
const (
	maxBody      = 64 << 10
	maxEventBody = 16 << 10
)

// outgoing is a write as the gateway sends it: built here from checked values, with
// nothing in it that a host wrote and nobody looked at.
type outgoing struct {
	verb        string
	path        string
	contentType string
	parameters  map[string]string
	body        any
}

func (g *Gateway) serveWrite(c *call, host *nfv1.Host) *refusal {
	var out outgoing
	var ref *refusal
	switch c.request.action {
	case actionApplyStatus:
		out, ref = g.statusWrite(c, host)
	case actionPatchLease:
		out, ref = g.leaseWrite(c)
	case actionCreateEvent:
		out, ref = eventWrite(c.event, host, g.clock.Now())
	default:
		return notAllowed(c.r)
	}
	if ref != nil {
		return ref
	}
	return g.forward(c, out)
}

func (g *Gateway) statusWrite(c *call, host *nfv1.Host) (outgoing, *refusal) {
	data, ref := readBody(c, maxBody, string(types.ApplyPatchType))
	if ref != nil {
		return outgoing{}, ref
	}
	return rebuildStatus(data, c.request, host)
}

func (g *Gateway) leaseWrite(c *call) (outgoing, *refusal) {
	data, ref := readBody(c, maxBody, string(types.MergePatchType), string(types.ApplyPatchType))
	if ref != nil {
		return outgoing{}, ref
	}
	return rebuildLease(data, c.request)
}

// readBody reads the whole body, if it is of one of the media types and not too large.
func readBody(c *call, limit int64, mediaTypes ...string) ([]byte, *refusal) {
	media, _, err := mime.ParseMediaType(c.r.Header.Get("Content-Type"))
	if err != nil || !slices.Contains(mediaTypes, media) {
		return nil, refuse(http.StatusUnsupportedMediaType, metav1.StatusReasonUnsupportedMediaType, causeBody,
			"the content type must be %s", strings.Join(mediaTypes, " or "))
	}
	if encoding := c.r.Header.Get("Content-Encoding"); encoding != "" && encoding != "identity" {
		return nil, refuse(http.StatusUnsupportedMediaType, metav1.StatusReasonUnsupportedMediaType, causeBody,
			"the content encoding %s is not supported", quote(encoding))
	}
	data, err := io.ReadAll(http.MaxBytesReader(c.w.ResponseWriter, c.r.Body, limit))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, refuse(http.StatusRequestEntityTooLarge, metav1.StatusReasonRequestEntityTooLarge, causeBody,
			"the body is larger than %d bytes", limit)
	case err != nil:
		return nil, badRequest(causeBody, "the body could not be read: %v", err)
	}
	return data, nil
}

// decodeStrict decodes JSON into a type of this package. Field names must be spelled
// exactly; unknown and repeated fields are refused, because dropping them in silence
// would tell a host that something was written which was not.
func decodeStrict(data []byte, into any) *refusal {
	strict, err := kjson.UnmarshalStrict(data, into)
	if err != nil {
		return badRequest(causeBody, "the body is not valid JSON of the expected form: %v", err)
	}
	if len(strict) > 0 {
		return badRequest(causeBody, "the body has fields that the gateway does not pass on: %s", quote(errors.Join(strict...).Error()))
	}
	return nil
}

// identityMeta is the metadata that a host may send: what names the object, and no more.
type identityMeta struct {
	Name      string    `json:"name"`
	Namespace string    `json:"namespace"`
	UID       types.UID `json:"uid"`
}

func checkKind(apiVersion, kind, wantVersion, wantKind string) *refusal {
	if apiVersion == wantVersion && kind == wantKind {
		return nil
	}
	return badRequest(causeBody, "the body must be of kind %s in %s, not of kind %s in %s", wantKind, wantVersion, quote(kind), quote(apiVersion))
}

func checkUID(uid types.UID, host *nfv1.Host) *refusal {
	if uid == host.UID {
		return nil
	}
	if uid == "" {
		return badRequest(causeBody, "the uid of Host %s is missing in the body", keyOf(host))
	}
	return refuse(http.StatusConflict, metav1.StatusReasonConflict, causeConflict,
		"the uid %s is not that of Host %s, which is %s: the Host was made anew; read it again", quote(string(uid)), keyOf(host), host.UID)
}

// checkText bounds a string that a host chose.
func checkText(field, value string, limit int) *refusal {
	switch {
	case value == "":
		return invalid("%s: required", field)
	case len(value) > limit:
		return invalid("%s: may not be longer than %d bytes", field, limit)
	default:
		return nil
	}
}

// forward sends a rebuilt write and passes the answer back.
func (g *Gateway) forward(c *call, out outgoing) *refusal {
	data, err := json.Marshal(out.body)
	if err != nil {
		return g.upstreamFailed(c, fmt.Errorf("encode write: %w", err))
	}
	code, answer, err := g.upstream.send(c.r.Context(), out, data, c.request.host)
	if err != nil {
		return g.upstreamFailed(c, err)
	}
	c.answer(code, answer)
	return nil
}

// decodeLenient decodes JSON and drops what the type does not know. Field names must be
// spelled exactly.
func decodeLenient(data []byte, into any) *refusal {
	if _, err := kjson.UnmarshalStrict(data, into); err != nil {
		return badRequest(causeBody, "the body is not valid JSON of the expected form: %v", err)
	}
	return nil
}
