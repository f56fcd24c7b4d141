// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package gateway

import (
	"crypto/tls"
	"net"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/utils/clock"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/identity"
)

// cutDelay is how long a connection whose key was revoked stays open, so that its
// streams can say why they end. The Host admits nothing over it in that time.
const cutDelay = 300 * time.Millisecond

// limits bound what one host can take.
type limits struct {
	rate    rate.Limit // Requests a second.
	burst   int        // Requests at once.
	streams int        // Open watches.
}

// hub holds the newest version of every Host and hands changes to the streams and
// connections that act for it. It is fed by one informer and shares its objects, which
// nobody may change. All of its memory belongs to a Host that exists or to a connection
// that is open.
type hub struct {
	clock  clock.WithTickerAndDelayedExecution
	limits limits
	opened func(delta int) // Called when the number of open streams changes.

	mu    sync.Mutex
	hosts map[types.NamespacedName]*member
	peers map[net.Conn]*peer
}

// member is a Host and those who act for it.
type member struct {
	host    *nfv1.Host
	pins    identity.Pins
	limiter *rate.Limiter
	streams map[*stream]struct{}
	peers   map[*peer]struct{}
}

// peer is an open connection. TLS binds one key to it for its whole life.
type peer struct {
	conn net.Conn
	pin  identity.Pin
	acts map[types.NamespacedName]struct{} // Hosts that it was admitted for.
	cut  bool
}

var _ toolscache.ResourceEventHandler = &hub{}

func newHub(c clock.WithTickerAndDelayedExecution, l limits, opened func(int)) *hub {
	return &hub{
		clock: c, limits: l, opened: opened,
		hosts: map[types.NamespacedName]*member{}, peers: map[net.Conn]*peer{},
	}
}

// OnAdd implements ResourceEventHandler.
func (h *hub) OnAdd(obj any, _ bool) { h.OnUpdate(nil, obj) }

// OnUpdate implements ResourceEventHandler.
func (h *hub) OnUpdate(_, obj any) {
	host, ok := obj.(*nfv1.Host)
	if !ok {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	key := keyOf(host)
	m := h.hosts[key]
	if m == nil {
		m = &member{
			limiter: rate.NewLimiter(h.limits.rate, h.limits.burst),
			streams: map[*stream]struct{}{}, peers: map[*peer]struct{}{},
		}
		h.hosts[key] = m
	}
	if m.host == nil || !slices.Equal(m.host.Spec.Identity.PublicKeys, host.Spec.Identity.PublicKeys) {
		// A key that cannot be parsed pins nothing; the host controller tells about it.
		m.pins, _ = identity.ParsePins(host.Spec.Identity.PublicKeys)
	}
	m.host = host
	h.settle(key, m)
}

// OnDelete implements ResourceEventHandler.
func (h *hub) OnDelete(obj any) {
	if gone, ok := obj.(toolscache.DeletedFinalStateUnknown); ok {
		obj = gone.Obj
	}
	host, ok := obj.(*nfv1.Host)
	if !ok {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	key := keyOf(host)
	m := h.hosts[key]
	if m == nil {
		return
	}
	delete(h.hosts, key)
	for s := range m.streams {
		s.end(host, nil)
	}
	for p := range m.peers {
		h.cutLater(p)
	}
}

// settle hands the new version to all who may see it and cuts off those who may not.
func (h *hub) settle(key types.NamespacedName, m *member) {
	for s := range m.streams {
		if ref := admit(key, m.host, m.pins, s.peer.pin); ref != nil {
			s.end(nil, ref)
			continue
		}
		s.offer(m.host)
	}
	for p := range m.peers {
		if admit(key, m.host, m.pins, p.pin) != nil {
			h.cutLater(p)
		}
	}
}

// cutLater closes a connection after cutDelay. It may act for another Host too, which
// pins the same key; that one's agent connects anew.
func (h *hub) cutLater(p *peer) {
	if p.cut {
		return
	}
	p.cut = true
	h.clock.AfterFunc(cutDelay, func() { closeNow(p.conn) })
}

// closeNow closes the socket beneath TLS: a TLS close waits for its alert to be sent,
// up to seconds when the client does not read.
func closeNow(conn net.Conn) {
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn()
	}
	_ = conn.Close() // It is of no use any more, whatever the error.
}

// connect registers a connection that has been accepted.
func (h *hub) connect(conn net.Conn) *peer {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := &peer{conn: conn, acts: map[types.NamespacedName]struct{}{}}
	h.peers[conn] = p
	return p
}

// disconnect forgets a connection that has been closed.
func (h *hub) disconnect(conn net.Conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.peers[conn]
	if p == nil {
		return
	}
	delete(h.peers, conn)
	for key := range p.acts {
		if m := h.hosts[key]; m != nil {
			delete(m.peers, p)
		}
	}
}

// connections returns how many connections are open.
func (h *hub) connections() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.peers)
}

// admit lets a connection act for a Host once, or says why not. From then on the
// connection is closed when the Host stops pinning its key.
func (h *hub) admit(p *peer, pin identity.Pin, key types.NamespacedName) (*nfv1.Host, *refusal) {
	h.mu.Lock()
	defer h.mu.Unlock()
	m, ref := h.member(p, pin, key)
	if ref != nil {
		return nil, ref
	}
	// Charged after admission: a stranger cannot use up a host's share.
	if !m.limiter.AllowN(h.clock.Now(), 1) {
		return nil, tooManyRequests(causeRateLimited, time.Second, "Host %s sends more than %v requests a second; slow down", key, float64(h.limits.rate))
	}
	return m.host, nil
}

func (h *hub) member(p *peer, pin identity.Pin, key types.NamespacedName) (*member, *refusal) {
	m := h.hosts[key]
	if m == nil {
		return nil, admit(key, nil, nil, pin)
	}
	if ref := admit(key, m.host, m.pins, pin); ref != nil {
		return nil, ref
	}
	p.pin = pin
	p.acts[key] = struct{}{}
	if _, open := h.peers[p.conn]; open {
		m.peers[p] = struct{}{}
	}
	return m, nil
}

// subscribe opens a stream of the versions of a Host, beginning with the one it
// returns. Admission is decided again, so that a key that is revoked between the two
// gets no stream. The caller must unsubscribe.
func (h *hub) subscribe(p *peer, pin identity.Pin, key types.NamespacedName) (*stream, *nfv1.Host, *refusal) {
	h.mu.Lock()
	defer h.mu.Unlock()
	m, ref := h.member(p, pin, key)
	if ref != nil {
		return nil, nil, ref
	}
	if len(m.streams) >= h.limits.streams {
		return nil, nil, tooManyRequests(causeTooManyStreams, 10*time.Second, "Host %s has %d watches open, which is the limit; close one", key, len(m.streams))
	}
	s := newStream(p)
	m.streams[s] = struct{}{}
	s.member = m
	h.opened(1)
	return s, m.host, nil
}

func (h *hub) unsubscribe(s *stream) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, open := s.member.streams[s]; open {
		delete(s.member.streams, s)
		h.opened(-1)
	}
}

func keyOf(host metav1.Object) types.NamespacedName {
	return types.NamespacedName{Namespace: host.GetNamespace(), Name: host.GetName()}
}
