// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package binarycache

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nix-community/go-nix/pkg/narinfo/signature"

	"github.com/nixfleet/nixfleet/internal/nix"
)

const narHash = "sha256:0ria7wivvfqd2sn4wka6qdvsvpzx9cdpnyhpqn8r094w21k0bv47"

// path makes a store path from a short name.
func path(name string) nix.StorePath {
	const alphabet = "0123456789abcdfghijklmnpqrsvwxyz"
	digest := make([]byte, 32)
	for i := range digest {
		digest[i] = alphabet[(int(name[i%len(name)])+i*7)%len(alphabet)]
	}
	return nix.StorePath("/nix/store/" + string(digest) + "-" + name)
}

func paths(names ...string) []nix.StorePath {
	list := make([]nix.StorePath, len(names))
	for i, name := range names {
		list[i] = path(name)
	}
	return list
}

type testKey struct{ signature.SecretKey }

func newKey(t testing.TB, name string) testKey {
	t.Helper()
	secret, _, err := signature.GenerateKeypair(name, nil)
	if err != nil {
		t.Fatal(err)
	}
	return testKey{secret}
}

func (k testKey) keys(t testing.TB) nix.PublicKeys {
	t.Helper()
	keys, err := nix.ParsePublicKeys([]string{k.ToPublicKey().String()})
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// server is a cache in memory.
type server struct {
	t   testing.TB
	url string

	mu       sync.Mutex
	files    map[string]string
	broken   map[string]int // status by file
	requests map[string]int
	stop     func()
}

func newServer(t testing.TB) *server {
	t.Helper()
	s := &server{
		t:     t,
		files: map[string]string{"/nix-cache-info": "StoreDir: /nix/store\n"}, broken: map[string]int{}, requests: map[string]int{},
	}
	srv := httptest.NewServer(s)
	t.Cleanup(srv.Close)
	s.url, s.stop = srv.URL, srv.Close
	return s
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests[r.URL.Path]++
	for _, file := range []string{r.URL.Path, "*"} {
		if status, ok := s.broken[file]; ok {
			w.WriteHeader(status)
			return
		}
	}
	text, ok := s.files[r.URL.Path]
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	_, _ = w.Write([]byte(text))
}

func file(p nix.StorePath) string { return "/" + p.Hash() + ".narinfo" }

// entry is a path in a cache.
type entry struct {
	name string
	refs []string
	key  *testKey // nil is unsigned
	ca   string
	size int // default 100; the download is half of it
}

func (s *server) put(entries ...entry) {
	s.t.Helper()
	for _, e := range entries {
		size := e.size
		if size == 0 {
			size = 100
		}
		info := nix.PathInfo{Path: path(e.name), NarHash: narHash, NarSize: uint64(size), References: paths(e.refs...)}
		s.putInfo(info, e.key, e.ca)
	}
}

func (s *server) putInfo(info nix.PathInfo, key *testKey, ca string) {
	s.t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "StorePath: %s\nURL: nar/x.nar.xz\nCompression: xz\nFileSize: %d\nNarHash: %s\nNarSize: %d\nReferences:",
		info.Path, info.NarSize/2, info.NarHash, info.NarSize)
	for _, ref := range info.References {
		b.WriteString(" " + ref.Base())
	}
	b.WriteString("\n")
	if key != nil {
		sig, err := key.Sign(nil, info.Fingerprint())
		if err != nil {
			s.t.Fatal(err)
		}
		fmt.Fprintf(&b, "Sig: %s\n", sig)
	}
	if ca != "" {
		fmt.Fprintf(&b, "CA: %s\n", ca)
	}
	s.set(file(info.Path), b.String())
}

func (s *server) set(name, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files[name] = text
}

func (s *server) fail(name string, status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broken[name] = status
}

func (s *server) asked(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests[name]
}

func (s *server) total() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, count := range s.requests {
		n += count
	}
	return n
}

func testClient(opts ...Option) *Client {
	return NewClient(append([]Option{WithBackoff(func(int) time.Duration { return 0 })}, opts...)...)
}
