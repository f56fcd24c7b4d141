// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package gateway

import (
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

// stream is one open watch. It has room for one version of the Host, the newest: a
// client that reads slowly misses versions in between, holds up nobody, and costs the
// same memory as one that reads fast.
type stream struct {
	peer   *peer
	member *member

	wake chan struct{} // Has room for one.

	mu    sync.Mutex
	next  *nfv1.Host
	final *ending
}

// ending is why a stream is over: the Host was deleted, or the key may not see it any
// more.
type ending struct {
	deleted *nfv1.Host
	refusal *refusal
}

func newStream(p *peer) *stream {
	return &stream{peer: p, wake: make(chan struct{}, 1)}
}

// offer makes host the next version that the stream sends. It never blocks.
func (s *stream) offer(host *nfv1.Host) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next = host
	s.ring()
}

// end makes the stream send why it is over, and nothing after it. It never blocks.
func (s *stream) end(deleted *nfv1.Host, ref *refusal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.final == nil {
		s.final = &ending{deleted: deleted, refusal: ref}
	}
	s.ring()
}

func (s *stream) ring() {
	select {
	case s.wake <- struct{}{}:
	default: // It has been woken and will find what is new.
	}
}

// take returns what there is to send. After an ending it returns that alone: a version
// must not reach a key that has been revoked since.
func (s *stream) take() (*nfv1.Host, *ending) {
	s.mu.Lock()
	defer s.mu.Unlock()
	host := s.next
	s.next = nil
	if s.final != nil {
		return nil, s.final
	}
	return host, nil
}

// eventWriter writes watch events. A client that does not take one within the timeout
// loses its stream.
type eventWriter struct {
	w       http.ResponseWriter
	control *http.ResponseController
	timeout time.Duration
	sent    string // The resource version that the client knows.
}

func (e *eventWriter) host(kind watch.EventType, host *nfv1.Host) error {
	e.sent = host.ResourceVersion
	return e.write(kind, visible(host))
}

// bookmark tells the client that it knows the newest version. The first one after
// initial events carries the annotation that ends them.
func (e *eventWriter) bookmark(annotations map[string]string) error {
	return e.write(watch.Bookmark, &nfv1.Host{
		TypeMeta:   hostType(),
		ObjectMeta: metav1.ObjectMeta{ResourceVersion: e.sent, Annotations: annotations},
	})
}

func (e *eventWriter) ending(last *ending) error {
	if last.deleted != nil {
		return e.write(watch.Deleted, visible(last.deleted))
	}
	return e.write(watch.Error, &last.refusal.status)
}

func (e *eventWriter) write(kind watch.EventType, obj runtime.Object) error {
	data, err := json.Marshal(&metav1.WatchEvent{Type: string(kind), Object: runtime.RawExtension{Object: obj}})
	if err != nil {
		return fmt.Errorf("encode watch event: %w", err)
	}
	// Deadlines of the network are in real time, whatever clock the gateway was given.
	if err := e.control.SetWriteDeadline(time.Now().Add(e.timeout)); err != nil {
		return fmt.Errorf("set write deadline: %w", err)
	}
	if _, err := e.w.Write(append(data, '\n')); err != nil {
		return fmt.Errorf("write watch event: %w", err)
	}
	return e.flush()
}

// flush sends what was written and lifts the deadline: that of HTTP/2 resets the stream
// when it passes, even if there is nothing to be written.
func (e *eventWriter) flush() error {
	if err := e.control.Flush(); err != nil {
		return fmt.Errorf("flush watch event: %w", err)
	}
	if err := e.control.SetWriteDeadline(time.Time{}); err != nil {
		return fmt.Errorf("lift write deadline: %w", err)
	}
	return nil
}

// visible returns the Host as its agent sees it. The object of the informer is shared
// and not touched.
func visible(host *nfv1.Host) *nfv1.Host {
	out := *host
	out.TypeMeta = hostType()
	out.ManagedFields = nil
	return &out
}

func hostType() metav1.TypeMeta {
	return metav1.TypeMeta{APIVersion: nfv1.GroupVersion.String(), Kind: "Host"}
}
