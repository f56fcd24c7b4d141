// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package agent

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/identity"
)

// eventually bounds how long a test waits for something that has to happen.
const eventually = 30 * time.Second

// fakeGateway speaks the contract between gateway and agent over real TLS, and keeps what
// it is told. Every change wakes those that wait in await.
type fakeGateway struct {
	*httptest.Server
	t testing.TB

	mu       sync.Mutex
	host     *nfv1.Host
	version  int
	down     bool
	statuses []nfv1.HostStatus
	events   []eventsv1.Event
	leases   int
	watches  int
	conns    map[string]bool // remote addresses of status writes
	changed  chan struct{}
}

func newFakeGateway(t testing.TB, host *nfv1.Host) *fakeGateway {
	t.Helper()
	g := &fakeGateway{t: t, host: host, changed: make(chan struct{}), conns: map[string]bool{}}
	g.Server = httptest.NewUnstartedServer(g)
	g.TLS = &tls.Config{MinVersion: tls.VersionTLS13, ClientAuth: tls.RequireAnyClientCert}
	g.EnableHTTP2 = true
	g.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	g.StartTLS()
	t.Cleanup(func() {
		g.CloseClientConnections()
		g.Close()
	})
	return g
}

// client is one that shows a key of its own and trusts this gateway.
func (g *fakeGateway) client(t testing.TB) *Client {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := identity.ClientCertificate(key)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(g.Certificate())
	return NewClient(g.URL, "fleet", "h", cert, roots)
}

// update changes what is there, and wakes all who wait for a change.
func (g *fakeGateway) update(f func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f()
	g.version++
	close(g.changed)
	g.changed = make(chan struct{})
}

// await waits until met holds; met is called with the lock held.
func (g *fakeGateway) await(t testing.TB, what string, met func() bool) {
	t.Helper()
	over := time.NewTimer(eventually)
	defer over.Stop()
	for {
		g.mu.Lock()
		ok, changed := met(), g.changed
		g.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-over.C:
			g.mu.Lock()
			defer g.mu.Unlock()
			t.Fatalf("not within %s: %s; statuses %+v, events %d, leases %d", eventually, what, g.statuses, len(g.events), g.leases)
		}
	}
}

func (g *fakeGateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	down := g.down
	g.mu.Unlock()
	if down {
		refuse(w, http.StatusServiceUnavailable, "the manager is not ready")
		return
	}
	hosts := "/apis/nixfleet.io/v1alpha1/namespaces/fleet/hosts"
	switch {
	case r.Method == http.MethodGet && r.URL.Path == hosts && r.URL.Query().Get("watch") == "true" && r.URL.Query().Get("fieldSelector") == "metadata.name=h":
		g.watch(w, r)
	case r.Method == http.MethodGet && r.URL.Path == hosts+"/h":
		w.WriteHeader(http.StatusOK)
	case r.Method == http.MethodPatch && r.URL.Path == hosts+"/h/status" && r.Header.Get("Content-Type") == "application/apply-patch+yaml":
		g.status(w, r)
	case r.Method == http.MethodPatch && r.URL.Path == "/apis/coordination.k8s.io/v1/namespaces/fleet/leases/nixfleet-host-h":
		var lease coordinationv1.Lease
		if g.read(w, r, &lease) && lease.Spec.RenewTime != nil {
			g.update(func() { g.leases++ })
		}
	case r.Method == http.MethodPost && r.URL.Path == "/apis/events.k8s.io/v1/namespaces/fleet/events":
		var event eventsv1.Event
		if g.read(w, r, &event) {
			g.update(func() { g.events = append(g.events, event) })
		}
	default:
		refuse(w, http.StatusForbidden, r.Method+" "+r.URL.String())
	}
}

func refuse(w http.ResponseWriter, code int, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(metav1.Status{Status: metav1.StatusFailure, Message: message, Code: int32(code)})
}

func (g *fakeGateway) read(w http.ResponseWriter, r *http.Request, into any) bool {
	data, err := io.ReadAll(r.Body)
	if err == nil {
		err = json.Unmarshal(data, into)
	}
	if err != nil {
		if r.Context().Err() == nil { // the agent did not end in the middle of it
			g.t.Errorf("%s %s: %v", r.Method, r.URL.Path, err)
		}
		refuse(w, http.StatusBadRequest, err.Error())
	}
	return err == nil
}

func (g *fakeGateway) status(w http.ResponseWriter, r *http.Request) {
	var report nfv1.Host
	if !g.read(w, r, &report) {
		return
	}
	g.mu.Lock()
	uid := g.host.UID
	g.mu.Unlock()
	if report.UID != uid {
		refuse(w, http.StatusConflict, "uid "+string(report.UID))
		return
	}
	g.update(func() {
		g.conns[r.RemoteAddr] = true
		g.statuses = append(g.statuses, report.Status)
		g.host.Status = report.Status
	})
}

// watch sends the Host as it is, and again at every change, until somebody cuts it off.
func (g *fakeGateway) watch(w http.ResponseWriter, r *http.Request) {
	g.update(func() { g.watches++ })
	sent := -1
	for {
		g.mu.Lock()
		changed, down, version := g.changed, g.down, g.version
		data, err := json.Marshal(map[string]any{"type": "MODIFIED", "object": g.host})
		g.mu.Unlock()
		if down || err != nil {
			return
		}
		if version != sent {
			if _, err := w.Write(append(data, '\n')); err != nil {
				return
			}
			http.NewResponseController(w).Flush() //nolint:errcheck // the next write tells
			sent = version
		}
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		}
	}
}

// runAgent runs an agent on a simulated host until the test ends.
func runAgent(t *testing.T, b *body, g *fakeGateway) *Agent {
	t.Helper()
	m := b.start(t, "boot-1")
	m.host, m.Clock = m.journal.Host, clock.RealClock{}
	a := newAgent(m, g.client(t), time.Minute, slog.New(slog.DiscardHandler))
	done := make(chan struct{})
	go func() {
		defer close(done)
		a.run(t.Context())
	}()
	t.Cleanup(func() { <-done })
	return a
}

func (g *fakeGateway) last() nfv1.HostStatus {
	if len(g.statuses) == 0 {
		return nfv1.HostStatus{}
	}
	return g.statuses[len(g.statuses)-1]
}

func (g *fakeGateway) ended(revision int64) func() bool {
	return func() bool {
		a := g.last().Attempt
		return a != nil && a.Revision == revision && a.Outcome != "" && g.last().Phase == nfv1.HostPhaseIdle
	}
}

func TestAgentThroughGateway(t *testing.T) {
	b := newBody(t)
	g := newFakeGateway(t, order1())
	runAgent(t, b, g)
	g.await(t, "the outcome", g.ended(1))
	g.await(t, "a heartbeat and an event", func() bool { return g.leases > 0 && len(g.events) > 0 })
	g.mu.Lock()
	defer g.mu.Unlock()
	if a := g.last().Attempt; a.Outcome != nfv1.AttemptSucceeded || a.RolloutUID != "rollout" {
		t.Errorf("attempt %+v", a)
	}
	// The confirmation and the outcome: steps of a quick host are not told.
	if len(g.statuses) != 2 {
		t.Errorf("%d reports", len(g.statuses))
	}
	if len(g.conns) < 2 {
		t.Error("the confirmation came over a connection that was open before the activation")
	}
	if e := g.events[0]; e.Regarding.UID != "uid" || e.Regarding.Kind != "Host" || e.Reason != string(nfv1.AttemptSucceeded) || e.Action == "" {
		t.Errorf("event %+v", e)
	}
}

// TestNothingIsLostWhileOffline takes the control plane away while the host is moved. The
// host goes on, and tells when it can.
func TestNothingIsLostWhileOffline(t *testing.T) {
	b := newBody(t)
	b.bad[newSystem] = true
	g := newFakeGateway(t, order1())
	b.onTest = func() { g.update(func() { g.down = true }) }
	runAgent(t, b, g)
	g.await(t, "the control plane is gone", func() bool { return g.down })
	b.awaitAction(t, "back")
	g.update(func() { g.down = false })
	g.await(t, "the outcome", g.ended(1))
	g.await(t, "the event", func() bool { return len(g.events) > 0 })
	g.mu.Lock()
	defer g.mu.Unlock()
	if a := g.last().Attempt; a.Outcome != nfv1.AttemptRolledBack || a.Reason != nfv1.ReasonHealthCheckFailed {
		t.Errorf("attempt %+v", a)
	}
}

// TestWatchComesBack cuts the watch off; what was asked meanwhile is done.
func TestWatchComesBack(t *testing.T) {
	b := newBody(t)
	g := newFakeGateway(t, order1())
	runAgent(t, b, g)
	g.await(t, "the first outcome", g.ended(1))
	g.update(func() { g.down = true })
	g.CloseClientConnections()
	g.update(func() {
		g.down = false
		g.host.Spec.Desired.Revision, g.host.Spec.Desired.StorePath = 2, nfv1.StorePath(oldSystem)
	})
	g.await(t, "the second outcome", g.ended(2))
	if g.watches < 2 {
		t.Errorf("%d watches", g.watches)
	}
}

// TestNewHostObjectStartsAfresh deletes the Host and makes it anew.
func TestNewHostObjectStartsAfresh(t *testing.T) {
	b := newBody(t)
	h := order1()
	h.Spec.Desired.Revision = 7
	g := newFakeGateway(t, h)
	runAgent(t, b, g)
	g.await(t, "the first outcome", g.ended(7))
	g.update(func() {
		again := order1()
		again.UID = "another"
		g.host = again
	})
	g.await(t, "the outcome for the new object", g.ended(1))
}

// TestEventsWaitForTheHost sees that what happens before the Host is known is told later.
func TestEventsWaitForTheHost(t *testing.T) {
	b := newBody(t)
	h := order1()
	h.Spec.Desired = nil
	g := newFakeGateway(t, h)
	g.down = true
	a := runAgent(t, b, g)
	a.reports.Event("Warning", "JournalCorrupt", "it was cut off")
	g.update(func() { g.down = false })
	g.await(t, "the event", func() bool { return len(g.events) == 1 && g.events[0].Reason == "JournalCorrupt" })
}

func TestClientTrustsItsCAOnly(t *testing.T) {
	g := newFakeGateway(t, order1())
	c := g.client(t)
	if err := c.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.tls.RootCAs = x509.NewCertPool()
	c.http = c.newHTTP()
	if err := c.Ping(t.Context()); err == nil || !strings.Contains(err.Error(), "unknown authority") {
		t.Errorf("error %v", err)
	}
	if c.Reachable() {
		t.Error("an impostor counts as the control plane")
	}
}

// TestRefusalSaysWhatTheGatewaySaid shows the text of a Status.
func TestRefusalSaysWhatTheGatewaySaid(t *testing.T) {
	g := newFakeGateway(t, order1())
	g.down = true
	err := g.client(t).Ping(t.Context())
	if err == nil || !strings.Contains(err.Error(), "503: the manager is not ready") {
		t.Errorf("error %v", err)
	}
}
