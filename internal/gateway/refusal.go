// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package gateway

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// cause is why a request was refused, as a metric label: a small closed set.
type cause string

const (
	causeNoCertificate  cause = "no_certificate"
	causeBadKey         cause = "unsupported_key"
	causePath           cause = "path"
	causeNotAllowed     cause = "not_allowed"
	causeQuery          cause = "query"
	causeNotAcceptable  cause = "not_acceptable"
	causeNotPinned      cause = "not_pinned"
	causeLifecycle      cause = "lifecycle"
	causeRateLimited    cause = "rate_limited"
	causeTooManyStreams cause = "too_many_streams"
	causeBody           cause = "body"
	causeConflict       cause = "uid_conflict"
	causeUpstream       cause = "upstream"
)

// refusal is an answer other than success: the Status that the client gets and the
// cause that is counted.
type refusal struct {
	status     metav1.Status
	cause      cause
	retryAfter time.Duration
}

func (r *refusal) Error() string { return r.status.Message }

func refuse(code int32, reason metav1.StatusReason, why cause, format string, args ...any) *refusal {
	return &refusal{
		cause: why,
		status: metav1.Status{
			TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"},
			Status:   metav1.StatusFailure,
			Code:     code,
			Reason:   reason,
			Message:  fmt.Sprintf(format, args...),
		},
	}
}

func unauthorized(format string, args ...any) *refusal {
	return refuse(http.StatusUnauthorized, metav1.StatusReasonUnauthorized, causeNoCertificate, format, args...)
}

func forbidden(why cause, format string, args ...any) *refusal {
	return refuse(http.StatusForbidden, metav1.StatusReasonForbidden, why, format, args...)
}

func badRequest(why cause, format string, args ...any) *refusal {
	return refuse(http.StatusBadRequest, metav1.StatusReasonBadRequest, why, format, args...)
}

func invalid(format string, args ...any) *refusal {
	return refuse(http.StatusUnprocessableEntity, metav1.StatusReasonInvalid, causeBody, format, args...)
}

func tooManyRequests(why cause, after time.Duration, format string, args ...any) *refusal {
	r := refuse(http.StatusTooManyRequests, metav1.StatusReasonTooManyRequests, why, format, args...)
	return r.again(after)
}

func unavailable(after time.Duration, format string, args ...any) *refusal {
	r := refuse(http.StatusServiceUnavailable, metav1.StatusReasonServiceUnavailable, causeUpstream, format, args...)
	return r.again(after)
}

// again says when the client may try again, in the header and in the details, where
// client-go looks for it.
func (r *refusal) again(after time.Duration) *refusal {
	r.retryAfter = after
	if r.status.Details == nil {
		r.status.Details = &metav1.StatusDetails{}
	}
	r.status.Details.RetryAfterSeconds = seconds(after)
	return r
}

func (r *refusal) write(w http.ResponseWriter) error {
	if r.retryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(seconds(r.retryAfter))))
	}
	return writeJSON(w, int(r.status.Code), &r.status)
}

func writeJSON(w http.ResponseWriter, code int, body any) error {
	data, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	header := w.Header()
	header.Set("Content-Type", "application/json")
	header.Set("Content-Length", strconv.Itoa(len(data)))
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	if _, err := w.Write(data); err != nil {
		return fmt.Errorf("write answer: %w", err)
	}
	return nil
}

// seconds rounds up, because a client that comes back too early is refused again.
func seconds(d time.Duration) int32 {
	return int32((d + time.Second - 1) / time.Second)
}
