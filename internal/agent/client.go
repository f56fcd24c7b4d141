// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package agent

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

// Client speaks the part of the Kubernetes API that the gateway lets a host use.
type Client struct {
	server, namespace, name string
	tls                     *tls.Config
	http                    *http.Client
	reachable               atomic.Bool
}

// requestTimeout bounds every request but the watch.
const requestTimeout = 30 * time.Second

// silence is how long a watch may say nothing before it counts as broken: the gateway
// sends a bookmark every minute.
const silence = 150 * time.Second

// NewClient returns a client that shows cert to the gateway at server and trusts the
// certificates of roots, and no others.
func NewClient(server, namespace, name string, cert tls.Certificate, roots *x509.CertPool) *Client {
	c := &Client{
		server: strings.TrimRight(server, "/"), namespace: namespace, name: name,
		tls: &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}, RootCAs: roots},
	}
	c.http = c.newHTTP()
	return c
}

// newHTTP makes a client with connections of its own.
func (c *Client) newHTTP() *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			TLSClientConfig: c.tls.Clone(), ForceAttemptHTTP2: true,
			TLSHandshakeTimeout: 15 * time.Second, IdleConnTimeout: 90 * time.Second, HTTP2: pings(),
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// pings find out that a connection is dead. Without them all requests would go on using
// one whose other end vanished, until TCP gives up after a quarter of an hour.
func pings() *http.HTTP2Config {
	return &http.HTTP2Config{SendPingTimeout: 30 * time.Second, PingTimeout: 15 * time.Second}
}

// Reachable reports whether the last exchange with the gateway went well.
func (c *Client) Reachable() bool { return c.reachable.Load() }

func (c *Client) hostPath() string {
	return fmt.Sprintf("/apis/%s/namespaces/%s/hosts", nfv1.GroupVersion, c.namespace)
}

// do sends a request. Anything but a success is an error with what the gateway said.
func (c *Client) do(ctx context.Context, client *http.Client, method, path, contentType string, body any) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	data, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, method, c.server+path, bytes.NewReader(data))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("Accept", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		c.reachable.Store(false)
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // nothing is lost with it
	c.reachable.Store(resp.StatusCode < http.StatusInternalServerError)
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode >= http.StatusMultipleChoices {
		return statusError(method, path, resp.StatusCode, answer)
	}
	return nil
}

// StatusError is a refusal of the gateway or of the API behind it.
type StatusError struct {
	// Code is the HTTP status.
	Code int

	// Message says what was refused and why.
	Message string
}

// Error is the message.
func (e *StatusError) Error() string { return e.Message }

func statusError(method, path string, code int, body []byte) error {
	var st metav1.Status
	text := http.StatusText(code)
	if err := json.Unmarshal(body, &st); err == nil && st.Message != "" {
		text = st.Message
	}
	return &StatusError{Code: code, Message: fmt.Sprintf("%s %s: %d: %s", method, path, code, shorten(text, 500))}
}

// Ping reads the Host once.
func (c *Client) Ping(ctx context.Context) error {
	return c.do(ctx, c.http, http.MethodGet, c.hostPath()+"/"+c.name, "application/json", nil)
}

// PatchStatus applies the whole status of the Host with this UID.
func (c *Client) PatchStatus(ctx context.Context, h *nfv1.Host, s nfv1.HostStatus) error {
	return c.patchStatus(ctx, c.http, h, s)
}

// PatchStatusFresh is PatchStatus over a connection that is dialled now: one that was
// open before proves nothing about the network of a new system.
func (c *Client) PatchStatusFresh(ctx context.Context, h *nfv1.Host, s nfv1.HostStatus) error {
	fresh := c.newHTTP()
	defer fresh.CloseIdleConnections()
	return c.patchStatus(ctx, fresh, h, s)
}

func (c *Client) patchStatus(ctx context.Context, client *http.Client, h *nfv1.Host, s nfv1.HostStatus) error {
	body := map[string]any{
		"apiVersion": nfv1.GroupVersion.String(), "kind": "Host",
		"metadata": map[string]any{"name": h.Name, "namespace": h.Namespace, "uid": h.UID},
		"status":   s,
	}
	return c.do(ctx, client, http.MethodPatch, c.hostPath()+"/"+c.name+"/status", "application/apply-patch+yaml", body)
}

// RenewLease tells the control plane that the agent lives.
func (c *Client) RenewLease(ctx context.Context, every time.Duration, now time.Time) error {
	path := fmt.Sprintf("/apis/coordination.k8s.io/v1/namespaces/%s/leases/%s", c.namespace, nfv1.LeaseName(c.name))
	body := map[string]any{"spec": map[string]any{
		"holderIdentity": c.name, "leaseDurationSeconds": max(int(3*every/time.Second), 1), "renewTime": metav1.NewMicroTime(now),
	}}
	return c.do(ctx, c.http, http.MethodPatch, path, "application/merge-patch+json", body)
}

// CreateEvent records an event about the Host.
func (c *Client) CreateEvent(ctx context.Context, h *nfv1.Host, eventType, reason, note string, now time.Time) error {
	e := eventsv1.Event{
		TypeMeta:            metav1.TypeMeta{APIVersion: "events.k8s.io/v1", Kind: "Event"},
		ObjectMeta:          metav1.ObjectMeta{GenerateName: h.Name + "-", Namespace: h.Namespace},
		EventTime:           metav1.NewMicroTime(now),
		ReportingController: "nixfleet.io/agent", ReportingInstance: h.Name,
		Action: "Move", Reason: reason, Type: eventType, Note: note,
		Regarding: corev1.ObjectReference{APIVersion: nfv1.GroupVersion.String(), Kind: "Host", Name: h.Name, Namespace: h.Namespace, UID: h.UID},
	}
	return c.do(ctx, c.http, http.MethodPost, fmt.Sprintf("/apis/events.k8s.io/v1/namespaces/%s/events", c.namespace), "application/json", e)
}

// Watch calls seen with every state of the Host until the stream ends; nil stands for a
// Host that does not exist. It always answers why the stream ended.
func (c *Client) Watch(ctx context.Context, seen func(*nfv1.Host)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	q := url.Values{"watch": {"true"}, "allowWatchBookmarks": {"true"}, "fieldSelector": {"metadata.name=" + c.name}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.server+c.hostPath()+"?"+q.Encode(), nil)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "application/json")
	watchdog := time.AfterFunc(silence, cancel)
	defer watchdog.Stop()
	resp, err := c.http.Do(req)
	if err != nil {
		c.reachable.Store(false)
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // nothing is lost with it
	if resp.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
		return statusError(http.MethodGet, c.hostPath(), resp.StatusCode, body)
	}
	c.reachable.Store(true)
	dec := json.NewDecoder(resp.Body)
	for {
		var e struct {
			Type   watch.EventType `json:"type"`
			Object json.RawMessage `json:"object"`
		}
		if err := dec.Decode(&e); err != nil {
			return fmt.Errorf("the watch ended: %w", err)
		}
		watchdog.Reset(silence)
		if err := deliver(e.Type, e.Object, seen); err != nil {
			return err
		}
	}
}

func deliver(kind watch.EventType, object json.RawMessage, seen func(*nfv1.Host)) error {
	switch kind {
	case watch.Added, watch.Modified:
		var h nfv1.Host
		if err := json.Unmarshal(object, &h); err != nil {
			return fmt.Errorf("the watch sent a Host that cannot be read: %w", err)
		}
		seen(&h)
	case watch.Deleted:
		seen(nil)
	case watch.Error:
		return statusError(http.MethodGet, "hosts", http.StatusInternalServerError, object)
	}
	return nil
}
