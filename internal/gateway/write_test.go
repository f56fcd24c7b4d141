// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package gateway

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var (
	applyHeader = http.Header{"Content-Type": {"application/apply-patch+yaml"}}
	mergeHeader = http.Header{"Content-Type": {"application/merge-patch+json"}}
	jsonHeader  = http.Header{"Content-Type": {"application/json"}}
)

const (
	goodReport = `{"apiVersion":"nixfleet.io/v1alpha1","kind":"Host","metadata":{"name":"web-01","namespace":"fleet","uid":"uid-web-01"},
		"status":{"phase":"Idle","observedGeneration":3,"conditions":[{"type":"Ready","status":"True","reason":"UpToDate","message":"","lastTransitionTime":"2026-11-23T10:00:00Z"}]}}`
	goodLease = `{"spec":{"holderIdentity":"web-01","leaseDurationSeconds":180,"renewTime":"2026-11-23T10:00:00.000000Z"}}`
	goodEvent = `{"apiVersion":"events.k8s.io/v1","kind":"Event","metadata":{"name":"web-01.1","namespace":"fleet"},
		"eventTime":"1999-01-01T00:00:00.000000Z","reportingController":"evil.example.org","reportingInstance":"x","type":"Normal","reason":"Activated","action":"Activate","note":"All is well",
		"regarding":{"apiVersion":"nixfleet.io/v1alpha1","kind":"Host","namespace":"fleet","name":"web-01","uid":"uid-web-01"},
		"related":{"apiVersion":"v1","kind":"Secret","namespace":"fleet","name":"secret"}}`
)

func writer(t *testing.T) (*harness, func(method, path, body string, header http.Header) answer) {
	t.Helper()
	key := newKey(t)
	h := start(t, nil)
	h.informer.Add(newHost(t, "web-01", "5", key))
	client := h.client(key, true)
	return h, func(method, path, body string, header http.Header) answer {
		return h.do(client, method, path, []byte(body), header)
	}
}

func TestWritesAreRebuilt(t *testing.T) {
	apply := map[string][]string{"fieldManager": {"nixfleet-agent"}, "force": {"true"}, "fieldValidation": {"Strict"}}
	other := map[string][]string{"fieldManager": {"nixfleet-agent"}, "fieldValidation": {"Strict"}}
	tests := map[string]struct {
		method, path, body string
		header             http.Header
		sentPath           string
		sentType           string
		query              map[string][]string
		sent               string
	}{
		"status": {
			"PATCH", hostsPath + "/web-01/status?fieldManager=nixfleet-rollout&force=false", goodReport, applyHeader,
			hostsPath + "/web-01/status", "application/apply-patch+yaml", apply, goodReport,
		},
		"lease": {
			"PATCH", leasePath + "?fieldManager=someone", goodLease, mergeHeader,
			leasePath, "application/merge-patch+json", other, goodLease,
		},
		"lease as apply": {
			"PATCH", leasePath,
			`{"apiVersion":"coordination.k8s.io/v1","kind":"Lease","metadata":{"name":"nixfleet-host-web-01","namespace":"fleet"},` + goodLease[1:], applyHeader,
			leasePath, "application/merge-patch+json", other, goodLease,
		},
		"event": {
			"POST", eventPath, goodEvent, jsonHeader,
			eventPath, "application/json", other,
			`{"apiVersion":"events.k8s.io/v1","kind":"Event","metadata":{"generateName":"web-01-","namespace":"fleet"},
			"eventTime":null,"reportingController":"nixfleet.io/agent","reportingInstance":"web-01","type":"Normal","reason":"Activated","action":"Activate","note":"All is well",
			"regarding":{"apiVersion":"nixfleet.io/v1alpha1","kind":"Host","namespace":"fleet","name":"web-01","uid":"uid-web-01"},
			"deprecatedSource":{},"deprecatedFirstTimestamp":null,"deprecatedLastTimestamp":null}`,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			h, send := writer(t)
			header := tt.header.Clone()
			for _, name := range []string{
				"Impersonate-User", "Impersonate-Group", "Impersonate-Uid", "Impersonate-Extra-Nixfleet.io%2fhost", "Impersonate-Extra-Scopes",
				"X-Forwarded-For", "X-Forwarded-User", "X-Remote-User", "Forwarded", "Cookie",
			} {
				header.Set(name, "admin")
			}
			header.Set("Authorization", "Bearer stolen")
			got := send(tt.method, tt.path, tt.body, header)
			if got.code != http.StatusOK {
				t.Fatalf("answered %d %s", got.code, got.body)
			}
			if strings.Contains(string(got.body), "managedFields") {
				t.Errorf("the answer has managed fields: %s", got.body)
			}
			writes := h.api.seen()
			if len(writes) != 1 {
				t.Fatalf("%d writes reached the API server, want 1", len(writes))
			}
			checkWrite(t, writes[0], tt.method, tt.sentPath, tt.sentType, tt.query, tt.sent)
		})
	}
}

func checkWrite(t *testing.T, write upstreamWrite, method, path, contentType string, query map[string][]string, body string) {
	t.Helper()
	var want map[string]any
	if err := json.Unmarshal([]byte(body), &want); err != nil {
		t.Fatal(err)
	}
	if write.body["eventTime"] != nil { // By the clock of the gateway.
		if strings.HasPrefix(write.body["eventTime"].(string), "1999") {
			t.Error("the event is dated by the host's clock")
		}
		write.body["eventTime"] = nil
	}
	if write.method != method || write.path != path {
		t.Errorf("sent %s %s, want %s %s", write.method, write.path, method, path)
	}
	if diff := cmp.Diff(query, write.query); diff != "" {
		t.Errorf("query (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want, write.body); diff != "" {
		t.Errorf("body (-want +got):\n%s", diff)
	}
	headers := map[string][]string{}
	for name, values := range write.header {
		switch name {
		case "Accept", "Accept-Encoding", "Content-Length", "User-Agent":
		default:
			headers[name] = values
		}
	}
	if diff := cmp.Diff(map[string][]string{
		"Content-Type":                         {contentType},
		"Authorization":                        {"Bearer manager-token"},
		"Impersonate-User":                     {"system:serviceaccount:nixfleet-system:nixfleet-agent"},
		"Impersonate-Extra-Nixfleet.io%2fhost": {"fleet/web-01"},
	}, headers); diff != "" {
		t.Errorf("headers (-want +got):\n%s", diff)
	}
}

func TestWritesRefuse(t *testing.T) {
	status := hostsPath + "/web-01/status"
	with := func(body, old, replacement string) string {
		if !strings.Contains(body, old) {
			t.Fatalf("%q is not in the body", old)
		}
		return strings.Replace(body, old, replacement, 1)
	}
	tests := map[string]struct {
		method, path, body string
		header             http.Header
		code               int
		says               string
	}{
		"status: merge patch":          {"PATCH", status, goodReport, mergeHeader, 415, "application/apply-patch+yaml"},
		"status: no content type":      {"PATCH", status, goodReport, nil, 415, "application/apply-patch+yaml"},
		"status: compressed":           {"PATCH", status, goodReport, http.Header{"Content-Type": applyHeader["Content-Type"], "Content-Encoding": {"gzip"}}, 415, "gzip"},
		"status: empty":                {"PATCH", status, "", applyHeader, 400, "not valid JSON"},
		"status: YAML":                 {"PATCH", status, "kind: Host\n", applyHeader, 400, "not valid JSON"},
		"status: truncated":            {"PATCH", status, goodReport[:100], applyHeader, 400, "not valid JSON"},
		"status: two documents":        {"PATCH", status, goodReport + goodReport, applyHeader, 400, "not valid JSON"},
		"status: a list":               {"PATCH", status, "[]", applyHeader, 400, "not valid JSON"},
		"status: too large":            {"PATCH", status, strings.Repeat(" ", maxBody+1), applyHeader, 413, "larger than"},
		"status: deep nesting":         {"PATCH", status, strings.Repeat(`{"status":`, 5000), applyHeader, 400, "JSON"},
		"status: spec":                 {"PATCH", status, with(goodReport, `"status":{"phase"`, `"spec":{"lifecycle":"Active"},"status":{"phase"`), applyHeader, 400, `"spec"`},
		"status: labels":               {"PATCH", status, with(goodReport, `"uid"`, `"labels":{"a":"b"},"uid"`), applyHeader, 400, "metadata.labels"},
		"status: finalizers":           {"PATCH", status, with(goodReport, `"uid"`, `"finalizers":["x"],"uid"`), applyHeader, 400, "metadata.finalizers"},
		"status: unknown field":        {"PATCH", status, with(goodReport, `"phase"`, `"fase":"Idle","phase"`), applyHeader, 400, "status.fase"},
		"status: repeated field":       {"PATCH", status, with(goodReport, `"phase"`, `"phase":"Fetching","phase"`), applyHeader, 400, "duplicate"},
		"status: field in other case":  {"PATCH", status, with(goodReport, `"phase"`, `"Phase"`), applyHeader, 400, "status.Phase"},
		"status: wrong type":           {"PATCH", status, with(goodReport, `"Idle"`, `17`), applyHeader, 400, "phase"},
		"status: no status":            {"PATCH", status, `{"apiVersion":"nixfleet.io/v1alpha1","kind":"Host","metadata":{"name":"web-01","namespace":"fleet","uid":"uid-web-01"}}`, applyHeader, 422, "status: required"},
		"status: another kind":         {"PATCH", status, with(goodReport, `"Host"`, `"Release"`), applyHeader, 400, "must be of kind Host"},
		"status: another version":      {"PATCH", status, with(goodReport, `v1alpha1`, `v1`), applyHeader, 400, "must be of kind Host"},
		"status: another name":         {"PATCH", status, with(goodReport, `"name":"web-01"`, `"name":"web-02"`), applyHeader, 400, "fleet/web-02"},
		"status: another namespace":    {"PATCH", status, with(goodReport, `"namespace":"fleet"`, `"namespace":"lab"`), applyHeader, 400, "lab/web-01"},
		"status: another uid":          {"PATCH", status, with(goodReport, `uid-web-01`, `uid-old`), applyHeader, 409, "made anew"},
		"status: no uid":               {"PATCH", status, with(goodReport, `,"uid":"uid-web-01"`, ``), applyHeader, 400, "uid"},
		"status: Online":               {"PATCH", status, with(goodReport, `"Ready"`, `"Online"`), applyHeader, 422, "host controller"},
		"lease: JSON patch":            {"PATCH", leasePath, goodLease, http.Header{"Content-Type": {"application/json-patch+json"}}, 415, "merge-patch"},
		"lease: no spec":               {"PATCH", leasePath, `{}`, mergeHeader, 422, "renewTime"},
		"lease: null renewTime":        {"PATCH", leasePath, `{"spec":{"renewTime":null}}`, mergeHeader, 422, "renewTime"},
		"lease: renewTime is no time":  {"PATCH", leasePath, `{"spec":{"renewTime":"yesterday"}}`, mergeHeader, 400, "yesterday"},
		"lease: owner":                 {"PATCH", leasePath, with(goodLease, `{"spec"`, `{"metadata":{"ownerReferences":[]},"spec"`), mergeHeader, 400, "metadata.ownerReferences"},
		"lease: labels":                {"PATCH", leasePath, with(goodLease, `{"spec"`, `{"metadata":{"labels":null},"spec"`), mergeHeader, 400, "metadata.labels"},
		"lease: acquireTime":           {"PATCH", leasePath, with(goodLease, `"holderIdentity"`, `"acquireTime":null,"holderIdentity"`), mergeHeader, 400, "spec.acquireTime"},
		"lease: another name":          {"PATCH", leasePath, with(goodLease, `{"spec"`, `{"metadata":{"name":"nixfleet-host-web-02"},"spec"`), mergeHeader, 400, "another Lease"},
		"lease: another kind":          {"PATCH", leasePath, with(goodLease, `{"spec"`, `{"apiVersion":"v1","kind":"Secret","spec"`), mergeHeader, 400, "must be of kind Lease"},
		"lease: long holder":           {"PATCH", leasePath, with(goodLease, `"web-01"`, `"`+strings.Repeat("x", 254)+`"`), mergeHeader, 422, "holderIdentity"},
		"lease: empty holder":          {"PATCH", leasePath, with(goodLease, `"web-01"`, `""`), mergeHeader, 422, "holderIdentity"},
		"lease: no duration":           {"PATCH", leasePath, with(goodLease, `180`, `0`), mergeHeader, 422, "leaseDurationSeconds"},
		"lease: endless":               {"PATCH", leasePath, with(goodLease, `180`, `2147483647`), mergeHeader, 422, "leaseDurationSeconds"},
		"event: about another host":    {"POST", eventPath, with(goodEvent, `"name":"web-01","uid"`, `"name":"web-02","uid"`), jsonHeader, 403, "fleet/web-02"},
		"event: about another kind":    {"POST", eventPath, with(goodEvent, `"kind":"Host"`, `"kind":"Pod"`), jsonHeader, 403, "own Host only"},
		"event: about another group":   {"POST", eventPath, with(goodEvent, `"apiVersion":"nixfleet.io/v1alpha1"`, `"apiVersion":"v1"`), jsonHeader, 403, "own Host only"},
		"event: another namespace":     {"POST", eventPath, with(goodEvent, `"namespace":"fleet","name":"web-01"`, `"namespace":"lab","name":"web-01"`), jsonHeader, 403, "one namespace"},
		"event: made elsewhere":        {"POST", eventPath, with(goodEvent, `"name":"web-01.1","namespace":"fleet"`, `"namespace":"lab"`), jsonHeader, 403, "one namespace"},
		"event: another uid":           {"POST", eventPath, with(goodEvent, `uid-web-01`, `uid-old`), jsonHeader, 409, "made anew"},
		"event: core event":            {"POST", eventPath, with(goodEvent, `events.k8s.io/v1`, `v1`), jsonHeader, 400, "must be of kind Event"},
		"event: another type":          {"POST", eventPath, with(goodEvent, `"Normal"`, `"Fatal"`), jsonHeader, 422, "Normal or Warning"},
		"event: no reason":             {"POST", eventPath, with(goodEvent, `"Activated"`, `""`), jsonHeader, 422, "reason"},
		"event: long reason":           {"POST", eventPath, with(goodEvent, `"Activated"`, `"`+strings.Repeat("x", 129)+`"`), jsonHeader, 422, "reason"},
		"event: no action":             {"POST", eventPath, with(goodEvent, `"Activate"`, `""`), jsonHeader, 422, "action"},
		"event: long note":             {"POST", eventPath, with(goodEvent, `All is well`, strings.Repeat("x", 1025)), jsonHeader, 422, "note"},
		"event: too large":             {"POST", eventPath, strings.Repeat(" ", maxEventBody+1), jsonHeader, 413, "larger than"},
		"event: YAML":                  {"POST", eventPath, goodEvent, http.Header{"Content-Type": {"application/yaml"}}, 415, "application/json"},
		"event: a path in the name":    {"POST", eventPath, with(goodEvent, `"name":"web-01","uid"`, `"name":"../web-01","uid"`), jsonHeader, 403, "own Host only"},
		"event: field of another case": {"POST", eventPath, with(goodEvent, `"regarding"`, `"Regarding"`), jsonHeader, 403, "own Host only"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			h, send := writer(t)
			got := send(tt.method, tt.path, tt.body, tt.header)
			if got.code != tt.code {
				t.Errorf("answered %d %s, want %d", got.code, got.body, tt.code)
			}
			contains(t, got.status.Message, tt.says)
			if writes := h.api.seen(); len(writes) > 0 {
				t.Errorf("a write reached the API server: %+v", writes)
			}
		})
	}
}

func TestAnswersOfTheAPIServer(t *testing.T) {
	failure := func(code int32, reason metav1.StatusReason, message string) *metav1.Status {
		return &metav1.Status{
			TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"},
			Status:   metav1.StatusFailure, Code: code, Reason: reason, Message: message,
		}
	}
	slow := failure(429, metav1.StatusReasonTooManyRequests, "slow down")
	slow.Details = &metav1.StatusDetails{RetryAfterSeconds: 7}
	tests := map[string]struct {
		code   int
		answer any
		want   int
		says   string
		hides  string
	}{
		"a conflict":             {409, failure(409, metav1.StatusReasonConflict, "uid mismatch"), 409, "uid mismatch", "\x00"},
		"an invalid status":      {422, failure(422, metav1.StatusReasonInvalid, "status.phase: unsupported"), 422, "status.phase", "\x00"},
		"not found":              {404, failure(404, metav1.StatusReasonNotFound, "hosts not found"), 404, "hosts not found", "\x00"},
		"denied by a policy":     {403, failure(403, metav1.StatusReasonForbidden, `ValidatingAdmissionPolicy "agent-status" denied request: not yours`), 403, "not yours", "\x00"},
		"overloaded":             {429, slow, 429, "slow down", "\x00"},
		"no right to write":      {403, failure(403, metav1.StatusReasonForbidden, `User "system:serviceaccount:nixfleet-system:nixfleet-agent" cannot patch`), 503, "its log says why", "system:"},
		"no right to act as":     {403, failure(403, metav1.StatusReasonForbidden, `users "x" is forbidden: cannot impersonate`), 503, "its log says why", "impersonate"},
		"credentials expired":    {401, failure(401, metav1.StatusReasonUnauthorized, "Unauthorized"), 503, "its log says why", "Unauthorized"},
		"an internal error":      {500, failure(500, metav1.StatusReasonInternalError, "etcd at 10.0.0.1 failed"), 503, "its log says why", "10.0.0.1"},
		"no Status":              {502, "bad gateway at 10.0.0.1", 503, "its log says why", "10.0.0.1"},
		"success that is no map": {200, "surprise", 503, "its log says why", "surprise"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			h, send := writer(t)
			h.api.respond(tt.code, tt.answer)
			got := send("PATCH", hostsPath+"/web-01/status", goodReport, applyHeader)
			if got.code != tt.want {
				t.Fatalf("answered %d %s, want %d", got.code, got.body, tt.want)
			}
			contains(t, got.status.Message, tt.says)
			if strings.Contains(string(got.body), tt.hides) {
				t.Errorf("the answer tells %q: %s", tt.hides, got.body)
			}
			if again := got.header.Get("Retry-After"); (tt.want == 503 || tt.want == 429) == (again == "") {
				t.Errorf("Retry-After is %q", again)
			}
		})
	}
	t.Run("unreachable", func(t *testing.T) {
		h, send := writer(t)
		h.api.Close()
		if got := send("PATCH", hostsPath+"/web-01/status", goodReport, applyHeader); got.code != http.StatusServiceUnavailable {
			t.Errorf("answered %d, want 503", got.code)
		}
	})
}
