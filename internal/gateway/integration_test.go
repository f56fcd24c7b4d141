// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

//go:build integration

package gateway

import (
	"context"
	"crypto"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	coordinationv1 "k8s.io/api/coordination/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/testenv"
)

var env *testenv.Env

func TestMain(m *testing.M) {
	os.Exit(testenv.Run(m, func(e *testenv.Env) { env = e }))
}

// realHarness is a gateway before a real API server, with the rights of the manager.
type realHarness struct {
	*harness
	namespace string
	watches   *atomic.Int64 // Upstream watches of Hosts that have been opened.
}

func startReal(t *testing.T) *realHarness {
	t.Helper()
	h := &realHarness{namespace: env.Namespace(t.Context()), watches: &atomic.Int64{}}
	config := env.ManagerConfig()
	counted := rest.CopyConfig(config)
	counted.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(r *http.Request) (*http.Response, error) {
			if strings.HasSuffix(r.URL.Path, "/hosts") && r.URL.Query().Get("watch") != "" {
				h.watches.Add(1)
			}
			return next.RoundTrip(r)
		})
	})
	fleet, err := cache.New(counted, cache.Options{Scheme: env.Scheme, DefaultTransform: cache.TransformStripManagedFields()})
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dir, roots := serverCertificate(t)
	gateway, err := New(Options{Config: config, Cache: fleet, CertDir: dir, Listener: listener, RequestsPerSecond: 1000, Burst: 1000})
	if err != nil {
		t.Fatal(err)
	}
	h.harness = &harness{t: t, gateway: gateway, url: "https://" + listener.Addr().String(), roots: roots}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = fleet.Start(ctx) })
	running.Go(func() {
		if err := gateway.Start(ctx); err != nil {
			t.Errorf("Start returned %v", err)
		}
	})
	t.Cleanup(func() { cancel(); running.Wait() })
	select {
	case <-gateway.serving:
	case <-time.After(eventually):
		t.Fatal("the gateway does not listen")
	}
	return h
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// add makes a Host, as an administrator does, and its Lease, as the host controller does.
func (h *realHarness) add(name string, keys ...crypto.Signer) *nfv1.Host {
	h.t.Helper()
	ctx := context.Background()
	host := newHost(h.t, name, "", keys...)
	host.ObjectMeta = metav1.ObjectMeta{Namespace: h.namespace, Name: name}
	if err := env.Client.Create(ctx, host); err != nil {
		h.t.Fatal(err)
	}
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: h.namespace, Name: nfv1.LeaseName(name)}}
	if err := env.Client.Create(ctx, lease); err != nil {
		h.t.Fatal(err)
	}
	h.known(host)
	return host
}

// known waits until the gateway has this version of the Host.
func (h *realHarness) known(host *nfv1.Host) {
	h.t.Helper()
	waitFor(h.t, eventually, "the gateway to know "+host.Name, func() bool {
		h.gateway.hub.mu.Lock()
		defer h.gateway.hub.mu.Unlock()
		m := h.gateway.hub.hosts[keyOf(host)]
		return m != nil && m.host.ResourceVersion == host.ResourceVersion
	})
}

// path puts a path of the namespace fleet into that of the harness.
func (h *realHarness) path(of string) string {
	return strings.Replace(of, "/fleet/", "/"+h.namespace+"/", 1)
}

func (h *realHarness) report(host *nfv1.Host, status nfv1.HostStatus) []byte {
	h.t.Helper()
	data, err := json.Marshal(map[string]any{
		"apiVersion": "nixfleet.io/v1alpha1", "kind": "Host",
		"metadata": map[string]any{"name": host.Name, "namespace": host.Namespace, "uid": host.UID},
		"status":   status,
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return data
}

func TestAgentWritesThroughPolicies(t *testing.T) {
	h := startReal(t)
	key := newKey(t)
	host := h.add("web-01", key)
	client := h.client(key, true)
	ctx := t.Context()

	t.Run("status", func(t *testing.T) {
		got := h.do(client, http.MethodPatch, h.path(hostsPath+"/web-01/status"), h.report(host, nfv1.HostStatus{
			Phase: nfv1.HostPhaseIdle, ObservedGeneration: host.Generation,
			Conditions: []metav1.Condition{{Type: "Healthy", Status: "True", Reason: "Passing", LastTransitionTime: metav1.Now()}},
		}), applyHeader)
		if got.code != http.StatusOK {
			t.Fatalf("answered %d %s", got.code, got.body)
		}
		var stored nfv1.Host
		if err := env.Client.Get(ctx, keyOf(host), &stored); err != nil {
			t.Fatal(err)
		}
		if !meta.IsStatusConditionTrue(stored.Status.Conditions, "Healthy") || stored.Status.Phase != nfv1.HostPhaseIdle {
			t.Errorf("stored %+v", stored.Status)
		}
		owners := map[string]bool{}
		for _, entry := range stored.ManagedFields {
			owners[entry.Manager+" "+string(entry.Operation)] = true
		}
		if !owners["nixfleet-agent Apply"] {
			t.Errorf("the fields belong to %v", owners)
		}
	})
	t.Run("a report that the schema refuses", func(t *testing.T) {
		got := h.do(client, http.MethodPatch, h.path(hostsPath+"/web-01/status"), h.report(host, nfv1.HostStatus{Phase: "Sleeping"}), applyHeader)
		if got.code != http.StatusUnprocessableEntity {
			t.Errorf("answered %d, want 422", got.code)
		}
		contains(t, got.status.Message, "status.phase", "Sleeping")
	})
	t.Run("lease", func(t *testing.T) {
		for _, renewed := range []string{"2026-11-23T10:00:00.000000Z", "1970-01-01T00:00:00.000001Z"} {
			body := fmt.Sprintf(`{"spec":{"holderIdentity":"web-01","leaseDurationSeconds":180,"renewTime":%q}}`, renewed)
			if got := h.do(client, http.MethodPatch, h.path(leasePath), []byte(body), mergeHeader); got.code != http.StatusOK {
				t.Fatalf("answered %d %s", got.code, got.body)
			}
			var lease coordinationv1.Lease
			if err := env.Client.Get(ctx, types.NamespacedName{Namespace: h.namespace, Name: "nixfleet-host-web-01"}, &lease); err != nil {
				t.Fatal(err)
			}
			if got := lease.Spec.RenewTime.UTC().Format(metav1.RFC3339Micro); got != renewed {
				t.Errorf("renewed at %s, want %s", got, renewed)
			}
		}
	})
	t.Run("event", func(t *testing.T) {
		body := strings.NewReplacer(`"fleet"`, `"`+h.namespace+`"`, "uid-web-01", string(host.UID)).Replace(goodEvent)
		if got := h.do(client, http.MethodPost, h.path(eventPath), []byte(body), jsonHeader); got.code != http.StatusCreated {
			t.Fatalf("answered %d %s", got.code, got.body)
		}
		var list eventsv1.EventList
		if err := env.Client.List(ctx, &list, inNamespace(h.namespace)); err != nil {
			t.Fatal(err)
		}
		if len(list.Items) != 1 || list.Items[0].Regarding.UID != host.UID || list.Items[0].ReportingController != ReportingController || list.Items[0].Related != nil {
			t.Errorf("stored %+v", list.Items)
		}
	})
	t.Run("lease that is not there", func(t *testing.T) {
		lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: h.namespace, Name: "nixfleet-host-web-01"}}
		if err := env.Client.Delete(ctx, lease); err != nil {
			t.Fatal(err)
		}
		if got := h.do(client, http.MethodPatch, h.path(leasePath), []byte(goodLease), mergeHeader); got.code != http.StatusNotFound {
			t.Errorf("answered %d %s, want 404: an agent makes no Lease", got.code, got.body)
		}
	})
}

func inNamespace(name string) client.ListOption { return client.InNamespace(name) }

// The policies refuse what the gateway would never send. Here it sends it.
func TestPoliciesCheckTheGateway(t *testing.T) {
	h := startReal(t)
	one, two := h.add("web-01", newKey(t)), h.add("web-02", newKey(t))
	send := func(out outgoing, body []byte, as types.NamespacedName) error {
		_, _, err := h.gateway.upstream.send(t.Context(), out, body, as)
		return err
	}
	status := func(host *nfv1.Host) outgoing {
		req := request{action: actionApplyStatus, host: keyOf(host)}
		out, ref := rebuildStatus(h.report(host, nfv1.HostStatus{Phase: nfv1.HostPhaseIdle}), req, host)
		if ref != nil {
			t.Fatal(ref)
		}
		return out
	}
	lease := outgoing{
		verb: http.MethodPatch, path: request{action: actionPatchLease, host: keyOf(one)}.path(), contentType: string(types.MergePatchType),
	}
	report := h.report(one, nfv1.HostStatus{Phase: nfv1.HostPhaseIdle})
	online := h.report(one, nfv1.HostStatus{Conditions: []metav1.Condition{{Type: "Online", Status: "True", Reason: "Forged", LastTransitionTime: metav1.Now()}}})

	if err := send(status(one), report, keyOf(one)); err != nil {
		t.Fatalf("the host's own status: %v", err)
	}
	if err := send(lease, []byte(goodLease), keyOf(one)); err != nil {
		t.Fatalf("the host's own Lease: %v", err)
	}
	for name, err := range map[string]error{
		"another host's status": send(status(one), report, keyOf(two)),
		"the condition Online":  send(status(one), online, keyOf(one)),
		"another host's Lease":  send(lease, []byte(goodLease), keyOf(two)),
		"labels of the Lease":   send(lease, []byte(`{"metadata":{"labels":{"a":"b"}}}`), keyOf(one)),
		"the spec": send(outgoing{verb: http.MethodPatch, path: request{action: actionGet, host: keyOf(one)}.path(), contentType: string(types.MergePatchType)},
			[]byte(`{"spec":{"lifecycle":"Maintenance"}}`), keyOf(one)),
	} {
		if !apierrors.IsForbidden(err) {
			t.Errorf("%s: %v, want Forbidden", name, err)
		}
	}
}

func TestRevocationInTheAPIReachesAgentsWithinASecond(t *testing.T) {
	h := startReal(t)
	key := newKey(t)
	host := h.add("web-01", key)
	client := h.client(key, true)
	events := h.events(t.Context(), client, h.path(watchPath))
	next(t, events)
	host.Spec.Identity.PublicKeys = []string{publicKey(t, newKey(t))}
	if err := env.Client.Update(t.Context(), host); err != nil {
		t.Fatal(err)
	}
	if last := next(t, events); last.Type != "ERROR" || last.Object.Code != http.StatusForbidden {
		t.Errorf("the last event is %+v", last)
	}
	ended(t, events, eventually)
	waitFor(t, eventually, "the connection to be closed", func() bool { return h.gateway.hub.connections() == 0 })
}

func TestFiveHundredWatchersNeedOneWatch(t *testing.T) {
	const watchers = 500
	h := startReal(t)
	streams := make([]<-chan watchEvent, watchers)
	hosts := make([]*nfv1.Host, watchers)
	keys := make([]crypto.Signer, watchers)
	for i := range watchers {
		keys[i] = newKey(t)
		hosts[i] = newHost(t, fmt.Sprintf("host-%03d", i), "", keys[i])
		hosts[i].ObjectMeta = metav1.ObjectMeta{Namespace: h.namespace, Name: hosts[i].Name}
		if err := env.Client.Create(t.Context(), hosts[i]); err != nil {
			t.Fatal(err)
		}
	}
	h.known(hosts[watchers-1])
	for i, host := range hosts {
		streams[i] = h.events(t.Context(), h.client(keys[i], true), h.path(hostsPath+"?watch=true&fieldSelector=metadata.name="+host.Name))
	}
	for i := range streams {
		if first := next(t, streams[i]); first.Object.Metadata.Name != hosts[i].Name {
			t.Fatalf("stream %d began with %s", i, first.Object.Metadata.Name)
		}
	}
	if n := testutil.ToFloat64(h.gateway.metrics.streams); n != watchers {
		t.Errorf("%v streams are open, want %d", n, watchers)
	}
	for i, host := range hosts {
		host.Labels = map[string]string{"round": "two"}
		if err := env.Client.Update(t.Context(), host); err != nil {
			t.Fatal(err)
		}
		if event := next(t, streams[i]); event.Object.Metadata.ResourceVersion != host.ResourceVersion {
			t.Fatalf("%s got version %s, want %s", host.Name, event.Object.Metadata.ResourceVersion, host.ResourceVersion)
		}
	}
	for i := range streams {
		if len(streams[i]) > 0 {
			t.Errorf("stream %d got an event that was not for it", i)
		}
	}
	if n := h.watches.Load(); n != 1 {
		t.Errorf("%d upstream watches were opened, want 1", n)
	}
}
