// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

// AgentUser is the service account that every write is made as. It may do what agents
// need and nothing else; which host it acts for is in the extra, and admission policies
// check that against the object.
const AgentUser = "system:serviceaccount:nixfleet-system:nixfleet-agent"

// hostExtra is the key of the extra that names the host, as namespace/name, escaped as
// header names demand.
const hostExtra = authenticationv1.ImpersonateUserExtraHeaderPrefix + nfv1.GroupName + "%2fhost"

// retryUpstream is when an agent may try again after the API server could not be asked.
const retryUpstream = 5 * time.Second

// upstream sends rebuilt writes to the API server. One client serves all hosts; who is
// impersonated travels in the headers of each request.
type upstream struct {
	client rest.Interface
}

func newUpstream(config *rest.Config) (*upstream, error) {
	if config.Impersonate.UserName != "" {
		return nil, fmt.Errorf("the client configuration impersonates %s; the gateway must impersonate %s itself", config.Impersonate.UserName, AgentUser)
	}
	config = rest.CopyConfig(config)
	// Hosts are limited one by one, and the API server limits the whole.
	config.QPS = -1
	config.ContentConfig = rest.ContentConfig{
		ContentType:          runtime.ContentTypeJSON,
		NegotiatedSerializer: serializer.NewCodecFactory(runtime.NewScheme()).WithoutConversion(),
	}
	// Warnings are about fields that the gateway sent; a host cannot act on them.
	config.WarningHandler = rest.NoWarnings{}
	client, err := rest.UnversionedRESTClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("client for writes: %w", err)
	}
	return &upstream{client: client}, nil
}

// send makes a write as the agent of host. The answer is what the API server stored,
// without managed fields.
func (u *upstream) send(ctx context.Context, out outgoing, body []byte, host types.NamespacedName) (int, any, error) {
	r := u.client.Verb(out.verb).AbsPath(out.path).
		SetHeader("Content-Type", out.contentType).
		SetHeader(authenticationv1.ImpersonateUserHeader, AgentUser).
		SetHeader(hostExtra, host.String()).
		MaxRetries(0).
		Body(body)
	for name, value := range out.parameters {
		r.Param(name, value)
	}
	var code int
	result := r.Do(ctx).StatusCode(&code)
	raw, err := result.Raw()
	if err != nil {
		return 0, nil, upstreamError(raw, err)
	}
	stored := map[string]any{}
	if err := json.Unmarshal(raw, &stored); err != nil {
		return 0, nil, fmt.Errorf("decode answer of the API server: %w", err)
	}
	if meta, ok := stored["metadata"].(map[string]any); ok {
		delete(meta, "managedFields")
	}
	return code, stored, nil
}

// upstreamError prefers the Status that the API server sent to the one that the client
// made up from the code.
func upstreamError(raw []byte, err error) error {
	var status metav1.Status
	if json.Unmarshal(raw, &status) == nil && status.Kind == "Status" && status.Status == metav1.StatusFailure && status.Code != 0 {
		return &apierrors.StatusError{ErrStatus: status}
	}
	return err
}

// upstreamFailed turns an error of the API server into the answer for the host. What
// concerns the host's object passes as it is; what concerns the gateway's own rights and
// connections is logged here and hidden there.
func (g *Gateway) upstreamFailed(c *call, err error) *refusal {
	var status *apierrors.StatusError
	if !errors.As(err, &status) || ownFault(status.ErrStatus) {
		c.log.Error(err, "Write failed", "path", c.r.URL.Path)
		return unavailable(retryUpstream, "the gateway could not write to the Kubernetes API; its log says why")
	}
	ref := &refusal{status: status.ErrStatus, cause: causeUpstream}
	if d := ref.status.Details; d != nil && d.RetryAfterSeconds > 0 {
		ref.retryAfter = time.Duration(d.RetryAfterSeconds) * time.Second
	}
	return ref
}

// ownFault says whether the API server refused the gateway rather than the write: bad
// credentials, or a right that is missing. The messages of the authorizer name users;
// those of admission policies do not.
func ownFault(status metav1.Status) bool {
	switch status.Code {
	case http.StatusUnauthorized:
		return true
	case http.StatusForbidden:
		return strings.Contains(status.Message, "User \"") || strings.Contains(status.Message, "impersonate")
	default:
		return status.Code >= http.StatusInternalServerError
	}
}
