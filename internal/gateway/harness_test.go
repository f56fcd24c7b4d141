// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package gateway

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/cache/informertest"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllertest"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/identity"
)

// eventually bounds how long a test waits for something that has to happen.
const eventually = 10 * time.Second

func testScheme() *runtime.Scheme {
	scheme := runtime.NewScheme()
	utilruntime.Must(nfv1.AddToScheme(scheme))
	return scheme
}

func newKey(t testing.TB) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func publicKey(t testing.TB, key crypto.Signer) string {
	t.Helper()
	line, err := identity.AuthorizedKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return line
}

// newHost returns a Host of namespace fleet that pins the keys.
func newHost(t testing.TB, name, version string, keys ...crypto.Signer) *nfv1.Host {
	t.Helper()
	host := &nfv1.Host{
		ObjectMeta: metav1.ObjectMeta{Namespace: "fleet", Name: name, UID: types.UID("uid-" + name), ResourceVersion: version, Generation: 1},
		Spec:       nfv1.HostSpec{Platform: nfv1.PlatformX8664Linux, Lifecycle: nfv1.LifecycleActive},
	}
	for _, key := range keys {
		host.Spec.Identity.PublicKeys = append(host.Spec.Identity.PublicKeys, publicKey(t, key)+" root@"+name)
	}
	return host
}

// apiServer records the writes that reach it and answers each as it is told.
type apiServer struct {
	*httptest.Server

	mu     sync.Mutex
	writes []upstreamWrite
	code   int
	answer any
}

type upstreamWrite struct {
	method, path string
	query        map[string][]string
	header       http.Header
	body         map[string]any
}

func newAPIServer(t testing.TB) *apiServer {
	t.Helper()
	s := &apiServer{code: http.StatusOK, answer: map[string]any{
		"metadata": map[string]any{"name": "web-01", "managedFields": []any{map[string]any{"manager": "secret"}}},
	}}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		write := upstreamWrite{method: r.Method, path: r.URL.Path, query: r.URL.Query(), header: r.Header.Clone()}
		if err := json.NewDecoder(r.Body).Decode(&write.body); err != nil {
			t.Errorf("the body that reached the API server is not JSON: %v", err)
		}
		s.writes = append(s.writes, write)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(s.code)
		_ = json.NewEncoder(w).Encode(s.answer)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *apiServer) respond(code int, answer any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.code, s.answer = code, answer
}

func (s *apiServer) seen() []upstreamWrite {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]upstreamWrite(nil), s.writes...)
}

// harness is a gateway that serves on loopback, with an informer that the test drives
// and an API server that records.
type harness struct {
	t        testing.TB
	gateway  *Gateway
	informer *controllertest.FakeInformer
	api      *apiServer
	registry *prometheus.Registry
	url      string
	roots    *x509.CertPool
	stop     context.CancelFunc
	stopped  chan error
}

func start(t testing.TB, adjust func(*Options)) *harness {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dir, roots := serverCertificate(t)
	informers := &informertest.FakeInformers{Scheme: testScheme()}
	h := &harness{
		t: t, api: newAPIServer(t), registry: prometheus.NewRegistry(),
		url: "https://" + listener.Addr().String(), roots: roots, stopped: make(chan error, 1),
	}
	options := Options{
		Config: &rest.Config{Host: h.api.URL, BearerToken: "manager-token"}, Cache: informers, CertDir: dir,
		Listener: listener, Registry: h.registry, Burst: 1000, RequestsPerSecond: 1000,
	}
	if adjust != nil {
		adjust(&options)
	}
	if h.gateway, err = New(options); err != nil {
		t.Fatal(err)
	}
	if h.informer, err = informers.FakeInformerFor(t.Context(), &nfv1.Host{}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	h.stop = cancel
	go func() { h.stopped <- h.gateway.Start(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-h.stopped; err != nil {
			t.Errorf("Start returned %v", err)
		}
	})
	select {
	case <-h.gateway.serving:
	case <-time.After(eventually):
		t.Fatal("the gateway does not listen")
	}
	return h
}

// waitStopped stops the gateway and returns what Start did.
func (h *harness) waitStopped() error {
	h.stop()
	err := <-h.stopped
	h.stopped <- nil // For the cleanup.
	return err
}

func serverCertificate(t testing.TB) (string, *x509.CertPool) {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "gateway"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	for name, data := range map[string][]byte{
		CertName: certificate, KeyName: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(certificate)
	return dir, roots
}

// client returns an HTTP client with a connection of its own that presents the key; nil
// presents none.
func (h *harness) client(key crypto.Signer, http2 bool) *http.Client {
	h.t.Helper()
	config := &tls.Config{RootCAs: h.roots, MinVersion: tls.VersionTLS13}
	if key != nil {
		certificate, err := identity.ClientCertificate(key)
		if err != nil {
			h.t.Fatal(err)
		}
		config.Certificates = []tls.Certificate{certificate}
	}
	transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: http2}
	h.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// restConfig is how a Kubernetes client reaches the gateway.
func (h *harness) restConfig(key crypto.Signer) *rest.Config {
	return &rest.Config{Host: h.url, Transport: h.client(key, true).Transport}
}

type answer struct {
	code   int
	header http.Header
	body   []byte
	status metav1.Status
}

func (h *harness) do(client *http.Client, method, path string, body []byte, header http.Header) answer {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), eventually)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, h.url+path, bytes.NewReader(body))
	if err != nil {
		h.t.Fatal(err)
	}
	for name, values := range header {
		r.Header[name] = values
	}
	response, err := client.Do(r)
	if err != nil {
		h.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer response.Body.Close() //nolint:errcheck // Read whole.
	data, err := io.ReadAll(response.Body)
	if err != nil {
		h.t.Fatalf("%s %s: %v", method, path, err)
	}
	a := answer{code: response.StatusCode, header: response.Header, body: data}
	if a.code >= http.StatusBadRequest {
		if err := json.Unmarshal(data, &a.status); err != nil || a.status.Kind != "Status" || int(a.status.Code) != a.code {
			h.t.Errorf("%s %s: answered %d without a Status of that code: %s", method, path, a.code, data)
		}
	}
	return a
}

// events opens a watch and delivers its events until it ends.
func (h *harness) events(ctx context.Context, client *http.Client, path string) <-chan watchEvent {
	h.t.Helper()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, h.url+path, nil)
	if err != nil {
		h.t.Fatal(err)
	}
	response, err := client.Do(r)
	if err != nil {
		h.t.Fatal(err)
	}
	if response.StatusCode != http.StatusOK {
		data, _ := io.ReadAll(response.Body)
		h.t.Fatalf("watch answered %d: %s", response.StatusCode, data)
	}
	events := make(chan watchEvent, 100)
	go func() {
		defer close(events)
		defer response.Body.Close() //nolint:errcheck // The events are what counts.
		decoder := json.NewDecoder(response.Body)
		for {
			var event watchEvent
			if decoder.Decode(&event) != nil {
				return
			}
			events <- event
		}
	}()
	return events
}

type watchEvent struct {
	Type   string
	Object struct {
		Kind     string
		Metadata metav1.ObjectMeta
		Message  string
		Code     int
	}
}

func next(t testing.TB, events <-chan watchEvent) watchEvent {
	t.Helper()
	select {
	case event, open := <-events:
		if !open {
			t.Fatal("the watch ended")
		}
		return event
	case <-time.After(eventually):
		t.Fatal("no event came")
	}
	return watchEvent{}
}

func ended(t testing.TB, events <-chan watchEvent, within time.Duration) {
	t.Helper()
	select {
	case event, open := <-events:
		if open {
			t.Fatalf("got event %v, want the end of the watch", event)
		}
	case <-time.After(within):
		t.Fatalf("the watch did not end within %s", within)
	}
}

const (
	hostsPath = "/apis/nixfleet.io/v1alpha1/namespaces/fleet/hosts"
	watchPath = hostsPath + "?watch=true&allowWatchBookmarks=true&fieldSelector=metadata.name=web-01"
	leasePath = "/apis/coordination.k8s.io/v1/namespaces/fleet/leases/nixfleet-host-web-01"
	eventPath = "/apis/events.k8s.io/v1/namespaces/fleet/events"
)

func contains(t testing.TB, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%q does not contain %q", text, part)
		}
	}
}
