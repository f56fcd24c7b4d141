// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

//go:build integration

package rollout

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

// fault is what goes wrong with a write.
type fault string

const (
	// conflict, throttled and failing are answers of a server that did not store it.
	conflict  fault = "conflict"
	throttled fault = "throttled"
	failing   fault = "internal error"
	// unsent is a connection that broke before the server had read the request.
	unsent fault = "not sent"
	// lost is a connection that broke after the server had stored it.
	lost fault = "answer lost"
)

// faultPlan fails one write of the rollout controller in a namespace: the nth, from 1, of
// its kind.
type faultPlan struct {
	fault fault
	what  string
	nth   int
}

func (p faultPlan) String() string {
	return fmt.Sprintf("%s at write %d to %s", p.fault, p.nth, p.what)
}

// injector sits between a manager's client and the API server: below everything that
// the client does by itself, as retrying what was throttled or reading its own writes.
type injector struct {
	mu     sync.Mutex
	plans  map[string]faultPlan
	writes map[string][]string
	fired  map[string]bool
}

func newInjector() *injector {
	return &injector{plans: map[string]faultPlan{}, writes: map[string][]string{}, fired: map[string]bool{}}
}

// plan says what to fail in a namespace.
func (i *injector) plan(namespace string, p faultPlan) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.plans[namespace] = p
}

// hit reports whether the plan for a namespace was carried out.
func (i *injector) hit(namespace string) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.fired[namespace]
}

// of are the writes to a namespace, in order.
func (i *injector) of(namespace string) []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return append([]string(nil), i.writes[namespace]...)
}

// wrap is for rest.Config.Wrap.
func (i *injector) wrap(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		namespace, what := writeOf(r)
		if what == "" {
			return next.RoundTrip(r)
		}
		f := i.next(namespace, what)
		switch f {
		case conflict:
			return answer(r, http.StatusConflict, metav1.StatusReasonConflict), nil
		case throttled:
			response := answer(r, http.StatusTooManyRequests, metav1.StatusReasonTooManyRequests)
			response.Header.Set("Retry-After", "1")
			return response, nil
		case failing:
			return answer(r, http.StatusInternalServerError, metav1.StatusReasonInternalError), nil
		case unsent:
			return nil, brokenConnection{}
		}
		response, err := next.RoundTrip(r)
		if f != lost || err != nil {
			return response, err
		}
		defer func() { _ = response.Body.Close() }()
		_, err = io.Copy(io.Discard, response.Body)
		if err != nil || response.StatusCode >= http.StatusBadRequest {
			return nil, fmt.Errorf("%s was to be stored, its answer to be lost: %s, %w", what, response.Status, err)
		}
		return nil, brokenConnection{}
	})
}

// next counts a write and says what is to go wrong with it.
func (i *injector) next(namespace, what string) fault {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.writes[namespace] = append(i.writes[namespace], what)
	n := 0
	for _, w := range i.writes[namespace] {
		if w == what {
			n++
		}
	}
	p := i.plans[namespace]
	if p.what != what || p.nth != n {
		return ""
	}
	i.fired[namespace] = true
	return p.fault
}

// writeOf is the namespace of a write of the rollout controller and what is written: the
// resource, or a part of it.
func writeOf(r *http.Request) (namespace, what string) {
	at := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	if r.Method == http.MethodGet || len(at) < 6 || at[1] != nfv1.GroupName || r.URL.Query().Get("fieldManager") != nfv1.FieldOwnerRollout {
		return "", ""
	}
	what = at[5]
	if len(at) > 7 {
		return at[4], what + "/" + at[7]
	}
	body, _ := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(body))
	switch {
	case bytes.Contains(body, []byte(`"finalizers"`)):
		what += " finalizer"
	case what != "hosts":
		what += " no finalizer"
	}
	return at[4], what
}

func answer(r *http.Request, code int, reason metav1.StatusReason) *http.Response {
	body, err := json.Marshal(metav1.Status{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"},
		Status:   metav1.StatusFailure, Code: int32(code), Reason: reason, Message: "as the test says", //nolint:gosec // a status code
	})
	if err != nil {
		panic(err)
	}
	return &http.Response{
		Status: http.StatusText(code), StatusCode: code, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: r,
		Header: http.Header{"Content-Type": []string{"application/json"}}, Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)),
	}
}

// brokenConnection is the error of a connection that timed out.
type brokenConnection struct{}

func (brokenConnection) Error() string   { return "connection timed out, as the test says" }
func (brokenConnection) Timeout() bool   { return true }
func (brokenConnection) Temporary() bool { return false }
