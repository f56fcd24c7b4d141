// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package gateway

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/identity"
)

func TestGatewayAsksWhoItIs(t *testing.T) {
	mine, foreign := newKey(t), newKey(t)
	small, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	h := start(t, nil)
	h.informer.Add(newHost(t, "web-01", "5", mine, small))
	h.informer.Add(newHost(t, "web-02", "6", foreign))
	other := newHost(t, "web-01", "7", foreign)
	other.Namespace = "lab"
	h.informer.Add(other)

	tests := map[string]struct {
		key  crypto.Signer
		path string
		code int
		says []string
	}{
		"the host's key":             {mine, "/web-01", 200, nil},
		"its other key":              {small, "/web-01", 200, nil},
		"no certificate":             {nil, "/web-01", 401, []string{"no client certificate"}},
		"another host's key":         {foreign, "/web-01", 403, []string{"fleet/web-01", fingerprint(t, foreign), "spec.identity.publicKeys"}},
		"a key that nobody pins":     {newKey(t), "/web-01", 403, []string{"fleet/web-01", "SHA256:"}},
		"a host that does not exist": {mine, "/web-99", 403, []string{"fleet/web-99", "does not exist, or does not pin", fingerprint(t, mine)}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := h.do(h.client(tt.key, true), http.MethodGet, hostsPath+tt.path, nil, nil)
			if got.code != tt.code {
				t.Fatalf("answered %d %s, want %d", got.code, got.body, tt.code)
			}
			contains(t, got.status.Message, tt.says...)
		})
	}
	t.Run("another namespace", func(t *testing.T) {
		got := h.do(h.client(mine, true), http.MethodGet, "/apis/nixfleet.io/v1alpha1/namespaces/lab/hosts/web-01", nil, nil)
		if got.code != http.StatusForbidden {
			t.Errorf("answered %d, want 403", got.code)
		}
	})
	if n := testutil.ToFloat64(h.gateway.metrics.refused.WithLabelValues(string(causeNotPinned))); n != 4 {
		t.Errorf("%v refusals were counted for keys that are not pinned, want 4", n)
	}
	if n := testutil.ToFloat64(h.gateway.metrics.requests.WithLabelValues("get", "hosts", "200")); n != 2 {
		t.Errorf("%v requests were counted as answered, want 2", n)
	}
}

func fingerprint(t testing.TB, key crypto.Signer) string {
	t.Helper()
	pin, err := identity.PinOf(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return pin.Fingerprint()
}

// A certificate of somebody else does not help: TLS asks for a proof that the client
// holds the key.
func TestGatewayNeedsProofOfPossession(t *testing.T) {
	mine, thief := newKey(t), newKey(t)
	h := start(t, nil)
	h.informer.Add(newHost(t, "web-01", "5", mine))
	certificate, err := identity.ClientCertificate(mine)
	if err != nil {
		t.Fatal(err)
	}
	certificate.PrivateKey = thief
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{
		RootCAs: h.roots, MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{certificate},
	}}}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, h.url+hostsPath+"/web-01", nil)
	if err != nil {
		t.Fatal(err)
	}
	if response, err := client.Do(r); err == nil {
		_ = response.Body.Close()
		t.Fatalf("answered %d to a stolen certificate", response.StatusCode)
	}
}

func TestGatewayRefusesOldTLSAndResumption(t *testing.T) {
	h := start(t, nil)
	address := h.url[len("https://"):]
	if conn, err := tls.Dial("tcp", address, &tls.Config{RootCAs: h.roots, MaxVersion: tls.VersionTLS12}); err == nil { //nolint:gosec // To see it refused.
		_ = conn.Close()
		t.Error("TLS 1.2 was accepted")
	}
	sessions := tls.NewLRUClientSessionCache(4)
	for range 2 {
		conn, err := tls.Dial("tcp", address, &tls.Config{RootCAs: h.roots, MinVersion: tls.VersionTLS13, ClientSessionCache: sessions, NextProtos: []string{"http/1.1"}})
		if err != nil {
			t.Fatal(err)
		}
		// A ticket would arrive with the first answer.
		if _, err := conn.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")); err != nil {
			t.Fatal(err)
		}
		buffer := make([]byte, 4096)
		if _, err := conn.Read(buffer); err != nil {
			t.Fatal(err)
		}
		if conn.ConnectionState().DidResume {
			t.Error("a session was resumed")
		}
		_ = conn.Close()
	}
}

func TestGatewayRefusesLifecyclesWithoutAgent(t *testing.T) {
	key := newKey(t)
	now := metav1.Now()
	tests := map[string]struct {
		change func(*nfv1.Host)
		code   int
		says   string
	}{
		"Pending":        {func(h *nfv1.Host) { h.Spec.Lifecycle = nfv1.LifecyclePending }, 403, "is Pending"},
		"Provisioning":   {func(h *nfv1.Host) { h.Spec.Lifecycle = nfv1.LifecycleProvisioning }, 200, ""},
		"Active":         {func(h *nfv1.Host) { h.Spec.Lifecycle = nfv1.LifecycleActive }, 200, ""},
		"Maintenance":    {func(h *nfv1.Host) { h.Spec.Lifecycle = nfv1.LifecycleMaintenance }, 200, ""},
		"Decommissioned": {func(h *nfv1.Host) { h.Spec.Lifecycle = nfv1.LifecycleDecommissioned }, 403, "is Decommissioned"},
		"being deleted":  {func(h *nfv1.Host) { h.DeletionTimestamp = &now }, 403, "is being deleted"},
		"no keys":        {func(h *nfv1.Host) { h.Spec.Identity.PublicKeys = nil }, 403, "does not pin"},
		"a broken key": {func(h *nfv1.Host) {
			h.Spec.Identity.PublicKeys = append([]string{"ssh-ed25519 AAAAbroken"}, h.Spec.Identity.PublicKeys...)
		}, 200, ""},
	}
	h := start(t, nil)
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			host := newHost(t, "web-01", "5", key)
			tt.change(host)
			h.informer.Update(nil, host)
			got := h.do(h.client(key, true), http.MethodGet, hostsPath+"/web-01", nil, nil)
			if got.code != tt.code {
				t.Fatalf("answered %d %s, want %d", got.code, got.body, tt.code)
			}
			contains(t, got.status.Message, tt.says)
		})
	}
}

// SSH host keys are public, so anyone may pin any key. A Host that pins a foreign key
// must not take the key away from the Host whose key it is.
func TestTwoHostsMayPinOneKey(t *testing.T) {
	shared := newKey(t)
	h := start(t, nil)
	h.informer.Add(newHost(t, "web-01", "5", shared))
	h.informer.Add(newHost(t, "web-02", "6", shared))
	client := h.client(shared, true)
	for _, name := range []string{"web-01", "web-02"} {
		got := h.do(client, http.MethodGet, hostsPath+"/"+name, nil, nil)
		var host nfv1.Host
		if err := json.Unmarshal(got.body, &host); err != nil || host.Name != name {
			t.Errorf("answered %d %s, want Host %s", got.code, got.body, name)
		}
	}
}

func TestRevocationClosesStreamsAndConnections(t *testing.T) {
	tests := map[string]struct {
		revoke func(*harness, *nfv1.Host)
		kind   string
		says   string
	}{
		"key removed": {func(h *harness, host *nfv1.Host) {
			host.Spec.Identity.PublicKeys = []string{publicKey(h.t, newKey(h.t))}
			h.informer.Update(nil, host)
		}, "ERROR", "does not pin the key"},
		"decommissioned": {func(h *harness, host *nfv1.Host) {
			host.Spec.Lifecycle = nfv1.LifecycleDecommissioned
			h.informer.Update(nil, host)
		}, "ERROR", "is Decommissioned"},
		"deletion begun": {func(h *harness, host *nfv1.Host) {
			now := metav1.Now()
			host.DeletionTimestamp = &now
			h.informer.Update(nil, host)
		}, "ERROR", "is being deleted"},
		"deleted": {func(h *harness, host *nfv1.Host) { h.informer.Delete(host) }, "DELETED", ""},
	}
	for name, tt := range tests {
		for _, protocol := range []struct {
			name string
			two  bool
		}{{"HTTP/1.1", false}, {"HTTP/2", true}} {
			t.Run(name+" over "+protocol.name, func(t *testing.T) {
				key, bystander := newKey(t), newKey(t)
				h := start(t, nil)
				h.informer.Add(newHost(t, "web-01", "5", key))
				h.informer.Add(newHost(t, "web-02", "6", bystander))
				client := h.client(key, protocol.two)
				events := h.events(t.Context(), client, watchPath)
				others := h.events(t.Context(), h.client(bystander, protocol.two), hostsPath+"?watch=true&fieldSelector=metadata.name=web-02")
				next(t, events)
				next(t, others)

				tt.revoke(h, newHost(t, "web-01", "9", key))
				last := next(t, events)
				if last.Type != tt.kind {
					t.Errorf("the last event is %s, want %s", last.Type, tt.kind)
				}
				contains(t, last.Object.Message, tt.says)
				ended(t, events, eventually)
				waitFor(t, eventually, "the connection to be closed", func() bool { return h.gateway.hub.connections() == 1 })

				if got := h.do(h.client(key, protocol.two), http.MethodGet, hostsPath+"/web-01", nil, nil); got.code != http.StatusForbidden {
					t.Errorf("answered %d after the revocation, want 403", got.code)
				}
				h.informer.Update(nil, newHost(t, "web-02", "10", bystander))
				if event := next(t, others); event.Object.Metadata.ResourceVersion != "10" {
					t.Errorf("the other host got %v", event)
				}
			})
		}
	}
}

// waitFor waits for a condition that other goroutines bring about.
func waitFor(t testing.TB, limit time.Duration, what string, done func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for !done() {
		select {
		case <-ctx.Done():
			t.Fatalf("waited %s for %s", limit, what)
		case <-ticker.C:
		}
	}
}

// A client that never reads cannot keep its stream after its key is revoked.
func TestRevocationCutsAClientThatDoesNotRead(t *testing.T) {
	key := newKey(t)
	h := start(t, nil)
	h.informer.Add(newHost(t, "web-01", "1", key))
	certificate, err := identity.ClientCertificate(key)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := tls.Dial("tcp", h.url[len("https://"):], &tls.Config{
		RootCAs: h.roots, MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{certificate}, NextProtos: []string{"http/1.1"},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // The gateway has closed it.
	if _, err := conn.Write([]byte("GET " + watchPath + " HTTP/1.1\r\nHost: gateway\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	waitFor(t, eventually, "the stream to open", func() bool { return testutil.ToFloat64(h.gateway.metrics.streams) == 1 })
	// Fill the socket until the writer is stuck: versions are handed over faster than
	// anyone reads them.
	big := newHost(t, "web-01", "2", key)
	big.Annotations = map[string]string{"filler": string(make([]byte, 1<<20))}
	for version := range 40 {
		host := big.DeepCopy()
		host.ResourceVersion = string(rune('A' + version))
		h.informer.Update(nil, host)
	}
	h.informer.Delete(big)
	waitFor(t, eventually, "the connection to be closed", func() bool { return h.gateway.hub.connections() == 0 })
	waitFor(t, eventually, "the stream to end", func() bool { return testutil.ToFloat64(h.gateway.metrics.streams) == 0 })
}
