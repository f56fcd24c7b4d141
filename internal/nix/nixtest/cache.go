// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package nixtest

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/nixfleet/nixfleet/internal/nix"
)

// Cache is a binary cache: a directory that Nix writes and a web server that can be
// stopped and started again at the same address.
type Cache struct {
	world *World
	dir   string

	mu       sync.Mutex
	address  string
	server   *http.Server
	handler  func(http.Handler) http.Handler
	requests []string
}

// NewCache makes an empty cache.
func (w *World) NewCache() *Cache {
	w.t.Helper()
	c := &Cache{world: w, dir: filepath.Join(w.dir, fmt.Sprintf("cache-%d", w.number()))}
	w.mkdir(c.dir)
	w.write(filepath.Join(c.dir, "nix-cache-info"), "StoreDir: "+nix.StoreDir+"\nWantMassQuery: 1\nPriority: 30\n")
	return c
}

// PushSigned uploads the closures of the paths. What the cache does not have yet is
// signed with the key.
func (c *Cache) PushSigned(key Key, paths ...nix.StorePath) {
	c.world.t.Helper()
	c.push("?secret-key="+key.SecretFile, paths)
}

// PushUnsigned uploads the closures of the paths; what the cache does not have yet stays
// without a signature.
func (c *Cache) PushUnsigned(paths ...nix.StorePath) {
	c.world.t.Helper()
	c.push("", paths)
}

// PushContentAddressed makes a copy of the closure whose paths are named by their
// contents and uploads it without signatures. It returns the copy.
func (c *Cache) PushContentAddressed(path nix.StorePath) nix.StorePath {
	c.world.t.Helper()
	copied := c.world.contentAddress(path)
	c.push("", []nix.StorePath{copied})
	return copied
}

func (c *Cache) push(query string, paths []nix.StorePath) {
	c.world.t.Helper()
	c.world.nix(append([]string{"copy", "--from", c.world.builder, "--to", "file://" + c.dir + query}, toStrings(paths)...)...)
}

// Remove takes a single path out of the cache.
func (c *Cache) Remove(path nix.StorePath) {
	c.world.t.Helper()
	if err := os.Remove(c.narinfoFile(path)); err != nil {
		c.world.t.Fatal(err)
	}
}

// Narinfo returns the text of the narinfo of the path.
func (c *Cache) Narinfo(path nix.StorePath) string {
	c.world.t.Helper()
	data, err := os.ReadFile(c.narinfoFile(path))
	if err != nil {
		c.world.t.Fatal(err)
	}
	return string(data)
}

// EditNarinfo replaces the text of the narinfo of the path.
func (c *Cache) EditNarinfo(path nix.StorePath, edit func(string) string) {
	c.world.t.Helper()
	c.world.write(c.narinfoFile(path), edit(c.Narinfo(path)))
}

// Restore puts the narinfo of a removed path back.
func (c *Cache) Restore(path nix.StorePath, narinfo string) {
	c.world.t.Helper()
	c.world.write(c.narinfoFile(path), narinfo)
}

// DropLines is an edit for EditNarinfo: lines with that beginning are left out.
func DropLines(prefix string) func(string) string {
	return func(narinfo string) string {
		var kept strings.Builder
		for line := range strings.Lines(narinfo) {
			if !strings.HasPrefix(line, prefix) {
				kept.WriteString(line)
			}
		}
		return kept.String()
	}
}

// TamperNAR changes the contents that the cache serves for the path.
func (c *Cache) TamperNAR(path nix.StorePath) {
	c.world.t.Helper()
	for line := range strings.Lines(c.Narinfo(path)) {
		if url, found := strings.CutPrefix(line, "URL: "); found {
			file := filepath.Join(c.dir, filepath.FromSlash(strings.TrimSpace(url)))
			data, err := os.ReadFile(file)
			if err != nil {
				c.world.t.Fatal(err)
			}
			middle := len(data) / 2
			tampered := bytes.Clone(data)
			tampered[middle] ^= 0xff
			if err := os.WriteFile(file, tampered, 0o600); err != nil {
				c.world.t.Fatal(err)
			}
			return
		}
	}
	c.world.t.Fatalf("the narinfo of %s has no URL", path)
}

func (c *Cache) narinfoFile(path nix.StorePath) string {
	return filepath.Join(c.dir, path.Hash()+".narinfo")
}

// Serve serves the cache on loopback and returns its URL. After Stop it serves it again at
// the same address.
func (c *Cache) Serve() string {
	c.world.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.server != nil {
		return "http://" + c.address
	}
	first := c.address == ""
	if first {
		c.address = "127.0.0.1:0"
	}
	listener, err := new(net.ListenConfig).Listen(c.world.t.Context(), "tcp", c.address)
	if err != nil {
		c.world.t.Fatalf("serve the cache: %v", err)
	}
	c.address = listener.Addr().String()
	server := &http.Server{Handler: http.HandlerFunc(c.serve), ReadHeaderTimeout: 10 * time.Second}
	c.server = server
	go func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			c.world.t.Errorf("serve the cache: %v", err)
		}
	}()
	if first {
		c.world.t.Cleanup(c.Stop)
	}
	return "http://" + c.address
}

// Stop ends the server and closes its connections: the next request is refused.
func (c *Cache) Stop() {
	c.mu.Lock()
	server := c.server
	c.server = nil
	c.mu.Unlock()
	if server == nil {
		return
	}
	if err := server.Close(); err != nil {
		c.world.t.Errorf("stop the cache: %v", err)
	}
}

// Intercept puts a handler before the cache; nil takes it away.
func (c *Cache) Intercept(wrap func(http.Handler) http.Handler) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.handler = wrap
}

// Requests returns the paths that were asked for, in order, and forgets them.
func (c *Cache) Requests() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	requests := c.requests
	c.requests = nil
	return requests
}

func (c *Cache) serve(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	c.requests = append(c.requests, r.URL.Path)
	wrap := c.handler
	c.mu.Unlock()
	handler := http.FileServer(http.Dir(c.dir))
	if wrap != nil {
		handler = wrap(handler)
	}
	handler.ServeHTTP(w, r)
}
