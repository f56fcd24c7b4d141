// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

//go:build integration

package nix_test

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nixfleet/nixfleet/internal/nix"
	"github.com/nixfleet/nixfleet/internal/nix/nixtest"
)

func TestRealiseFetchesAndRoots(t *testing.T) {
	w := nixtest.New(t)
	key := w.Key("fleet-1")
	path := w.BuildSystem(nixtest.Spec{Host: "web-01", Ballast: 50_000})
	w.PushSigned(key, path)
	root := w.HostRoot()
	store := nix.NewStore(root, w.Options()...)

	if valid, err := store.Valid(t.Context(), path); err != nil || valid {
		t.Fatalf("Valid before the fetch: %v, %v", valid, err)
	}
	if _, err := store.Info(t.Context(), path); !errors.Is(err, nix.ErrNotValid) {
		t.Fatalf("Info before the fetch: %v, want ErrNotValid", err)
	}
	var mu sync.Mutex
	var seen []nix.FetchProgress
	err := store.Realise(t.Context(), path, nix.RealiseOptions{
		Root: "target", Caches: []string{w.ServeCache()}, PublicKeys: []string{key.Public},
		Progress: func(p nix.FetchProgress) {
			mu.Lock()
			defer mu.Unlock()
			seen = append(seen, p)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	closure := w.Closure(path)
	for _, p := range closure {
		if valid, err := store.Valid(t.Context(), p); err != nil || !valid {
			t.Errorf("Valid(%s) after the fetch: %v, %v", p, valid, err)
		}
	}
	if len(seen) == 0 {
		t.Fatal("no progress was reported")
	}
	last := seen[len(seen)-1]
	if n := int64(len(closure)); last.PathsDone != n || last.PathsTotal != n {
		t.Errorf("paths at the end: %+v, want %d", last, n)
	}
	if last.BytesTotal == 0 || last.BytesDone != last.BytesTotal {
		t.Errorf("bytes at the end: %+v", last)
	}

	info, err := store.Info(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if info.SignaturesErr != nil || len(info.Signatures) != 1 {
		t.Errorf("signatures: %q, %v", info.Signatures, info.SignaturesErr)
	}
	if len(info.References) < 3 || !slices.IsSorted(info.References) {
		t.Errorf("references: %v", info.References)
	}
	keys := mustKeys(t, key.Public)
	if err := nix.VerifyToplevel(info, nil, keys); err != nil {
		t.Errorf("VerifyToplevel: %v", err)
	}
	// Without local signatures, the one of the cache proves the local facts.
	info.Signatures = nil
	sig := strings.TrimSpace(strings.TrimPrefix(lineOf(w.Cache().Narinfo(path), "Sig: "), "Sig: "))
	if err := nix.VerifyToplevel(info, []string{sig}, keys); err != nil {
		t.Errorf("VerifyToplevel with the signature of the cache: %v", err)
	}
	// Nothing of this machine's caches or configuration was touched.
	if entries, _ := os.ReadDir(filepath.Join(root, "var/lib/nixfleet/nix-home/cache")); len(entries) == 0 {
		t.Error("Nix does not keep its cache in the state directory")
	}
}

func lineOf(text, prefix string) string {
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, prefix) {
			return line
		}
	}
	return ""
}

func mustKeys(t *testing.T, keys ...string) nix.PublicKeys {
	t.Helper()
	parsed, err := nix.ParsePublicKeys(keys)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

// TestRealiseRefuses: whatever is wrong with what the caches serve, the fetch fails, says
// why, and the toplevel is not in the store.
func TestRealiseRefuses(t *testing.T) {
	w := nixtest.New(t)
	good := w.Key("fleet-1")
	path := w.BuildSystem(nixtest.Spec{Host: "web-01"})
	inner := w.Closure(path)[0]

	cases := map[string]struct {
		prepare func(c *nixtest.Cache)
		want    string
	}{
		"unsigned":     {func(c *nixtest.Cache) { c.PushUnsigned(path) }, "is not signed by"},
		"other key":    {func(c *nixtest.Cache) { c.PushSigned(w.Key("other-1"), path) }, "is not signed by"},
		"impostor key": {func(c *nixtest.Cache) { c.PushSigned(w.ImpostorKey("fleet-1"), path) }, "is not signed by"},
		"damaged contents": {func(c *nixtest.Cache) {
			c.PushSigned(good, path)
			c.TamperNAR(inner)
		}, "archive"},
		"foreign contents": {func(c *nixtest.Cache) {
			c.PushSigned(good, path)
			foreign := c.Narinfo(inner)
			c.EditNarinfo(path, func(s string) string {
				for _, field := range []string{"URL: ", "FileHash: ", "FileSize: "} {
					s = strings.Replace(s, lineOf(s, field), lineOf(foreign, field), 1)
				}
				return s
			})
		}, "hash mismatch"},
		"tampered references": {func(c *nixtest.Cache) {
			c.PushSigned(good, path)
			c.EditNarinfo(path, func(s string) string {
				return strings.Replace(s, lineOf(s, "References: "), "References: \n", 1)
			})
		}, "is not signed by"},
		"inner path missing": {func(c *nixtest.Cache) {
			c.PushSigned(good, path)
			c.Remove(inner)
		}, ""},
		"empty cache": {func(*nixtest.Cache) {}, path.String()},
		"HTML for everything": {func(c *nixtest.Cache) {
			c.Intercept(func(http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
					_, _ = w.Write([]byte("<html>for sale</html>"))
				})
			})
		}, ""},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			cache := w.NewCache()
			tc.prepare(cache)
			store := nix.NewStore(w.HostRoot(), w.Options()...)
			err := store.Realise(t.Context(), path, nix.RealiseOptions{
				Root: "target", Caches: []string{cache.Serve()}, PublicKeys: []string{good.Public},
			})
			var failed *nix.CommandError
			if !errors.As(err, &failed) {
				t.Fatalf("error %v (%T), want a CommandError", err, err)
			}
			t.Log(err)
			if failed.Message == "" || !strings.Contains(failed.Message, tc.want) {
				t.Errorf("message %q does not contain %q", failed.Message, tc.want)
			}
			if valid, err := store.Valid(t.Context(), path); err != nil || valid {
				t.Errorf("Valid after a failed fetch: %v, %v", valid, err)
			}
		})
	}
}

// TestTrustHasNoExemption: what Nix accepts without a signature is refused.
func TestTrustHasNoExemption(t *testing.T) {
	w := nixtest.New(t)
	key := w.Key("fleet-1")
	keys := mustKeys(t, key.Public)
	path := w.BuildSystem(nixtest.Spec{Host: "web-01"})

	t.Run("content-addressed", func(t *testing.T) {
		cache := w.NewCache()
		copied := cache.PushContentAddressed(path)
		store := nix.NewStore(w.HostRoot(), w.Options()...)
		opts := nix.RealiseOptions{Root: "target", Caches: []string{cache.Serve()}, PublicKeys: []string{key.Public}}
		if err := store.Realise(t.Context(), copied, opts); err != nil {
			t.Fatalf("Nix is expected to accept it: %v", err)
		}
		requireUntrusted(t, store, copied, keys)
	})
	t.Run("built here", func(t *testing.T) {
		root := w.HostRoot()
		w.CopyToHost(root, path)
		store := nix.NewStore(root, w.Options()...)
		// The cache has an unsigned copy, and Nix does not even look: the path is valid.
		cache := w.NewCache()
		opts := nix.RealiseOptions{Root: "target", Caches: []string{cache.Serve()}, PublicKeys: []string{key.Public}}
		if err := store.Realise(t.Context(), path, opts); err != nil {
			t.Fatalf("Nix is expected to accept it: %v", err)
		}
		requireUntrusted(t, store, path, keys)
	})
	t.Run("foreign contents under a signed name", func(t *testing.T) {
		other := w.BuildSystem(nixtest.Spec{Host: "web-01", Version: "2"})
		cache := w.NewCache()
		cache.PushSigned(key, other)
		root := w.HostRoot()
		w.CopyToHost(root, path)
		info, err := nix.NewStore(root, w.Options()...).Info(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		sig := strings.TrimSpace(strings.TrimPrefix(lineOf(cache.Narinfo(other), "Sig: "), "Sig: "))
		if err := nix.VerifyToplevel(info, []string{sig}, keys); !errors.Is(err, nix.ErrUntrusted) {
			t.Errorf("a signature of another path: %v, want ErrUntrusted", err)
		}
	})
}

func requireUntrusted(t *testing.T, store *nix.RealStore, path nix.StorePath, keys nix.PublicKeys) {
	t.Helper()
	info, err := store.Info(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	err = nix.VerifyToplevel(info, nil, keys)
	if !errors.Is(err, nix.ErrUntrusted) {
		t.Errorf("VerifyToplevel: %v, want ErrUntrusted", err)
	}
	t.Log(err)
}

// TestRealiseFindsWhatCameLater: a path that was missing once is found after its upload.
func TestRealiseFindsWhatCameLater(t *testing.T) {
	w := nixtest.New(t)
	key := w.Key("fleet-1")
	path := w.BuildSystem(nixtest.Spec{})
	store := nix.NewStore(w.HostRoot(), w.Options()...)
	opts := nix.RealiseOptions{Root: "target", Caches: []string{w.ServeCache()}, PublicKeys: []string{key.Public}}
	if err := store.Realise(t.Context(), path, opts); err == nil {
		t.Fatal("fetched from an empty cache")
	}
	w.PushSigned(key, path)
	if err := store.Realise(t.Context(), path, opts); err != nil {
		t.Fatal(err)
	}
}

// TestRealiseGoesToTheNextCache: neither a cache that is down nor one that fails nor one
// with an untrusted copy hides the next.
func TestRealiseGoesToTheNextCache(t *testing.T) {
	w := nixtest.New(t)
	key := w.Key("fleet-1")
	path := w.BuildSystem(nixtest.Spec{})
	w.PushSigned(key, path)

	down := w.NewCache()
	downURL := down.Serve()
	down.Stop()
	untrusted := w.NewCache()
	untrusted.PushUnsigned(path)
	broken := w.NewCache()
	broken.PushSigned(key, path)
	broken.TamperNAR(path)
	for name, first := range map[string]string{"down": downURL, "untrusted": untrusted.Serve(), "broken contents": broken.Serve()} {
		t.Run(name, func(t *testing.T) {
			store := nix.NewStore(w.HostRoot(), w.Options()...)
			opts := nix.RealiseOptions{Root: "target", Caches: []string{first, w.ServeCache()}, PublicKeys: []string{key.Public}}
			if err := store.Realise(t.Context(), path, opts); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestRealiseStops: a cache that never answers does not outlive the context.
func TestRealiseStops(t *testing.T) {
	w := nixtest.New(t)
	key := w.Key("fleet-1")
	path := w.BuildSystem(nixtest.Spec{})
	w.PushSigned(key, path)
	asked := make(chan struct{})
	var once sync.Once
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	w.Cache().Intercept(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.URL.Path, "/nar/") {
				once.Do(func() { close(asked) })
				select {
				case <-release:
				case <-r.Context().Done():
				}
				return
			}
			next.ServeHTTP(rw, r)
		})
	})
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("a newer revision came")
	go func() {
		<-asked
		cancel(stop)
	}()
	store := nix.NewStore(w.HostRoot(), w.Options()...)
	opts := nix.RealiseOptions{Root: "target", Caches: []string{w.ServeCache()}, PublicKeys: []string{key.Public}}
	begin := time.Now()
	if err := store.Realise(ctx, path, opts); !errors.Is(err, stop) {
		t.Fatalf("error %v, want %v", err, stop)
	}
	if took := time.Since(begin); took > 20*time.Second {
		t.Errorf("it took %s to stop", took)
	}
}

func TestRootsKeepPaths(t *testing.T) {
	w := nixtest.New(t)
	key := w.Key("fleet-1")
	kept := w.BuildSystem(nixtest.Spec{Version: "1"})
	given := w.BuildSystem(nixtest.Spec{Version: "2"})
	w.PushSigned(key, kept, given)
	root := w.HostRoot()
	store := nix.NewStore(root, w.Options()...)
	for name, path := range map[string]nix.StorePath{"kept": kept, "given": given} {
		opts := nix.RealiseOptions{Root: name, Caches: []string{w.ServeCache()}, PublicKeys: []string{key.Public}}
		if err := store.Realise(t.Context(), path, opts); err != nil {
			t.Fatal(err)
		}
	}
	w.CollectGarbage(root)
	requireValid(t, store, map[nix.StorePath]bool{kept: true, given: true})

	for range 2 { // The second time there is none.
		if err := store.RemoveRoot(t.Context(), "given"); err != nil {
			t.Fatal(err)
		}
	}
	w.CollectGarbage(root)
	requireValid(t, store, map[nix.StorePath]bool{kept: true, given: false})

	// A second root holds alone.
	if err := store.AddRoot(t.Context(), "again", kept); err != nil {
		t.Fatal(err)
	}
	if err := store.RemoveRoot(t.Context(), "kept"); err != nil {
		t.Fatal(err)
	}
	w.CollectGarbage(root)
	requireValid(t, store, map[nix.StorePath]bool{kept: true})
	for _, p := range w.Closure(kept) {
		requireValid(t, store, map[nix.StorePath]bool{p: true})
	}

	if err := store.AddRoot(t.Context(), "gone", given); err == nil {
		t.Error("rooted a path that is not in the store")
	}
}

func requireValid(t *testing.T, store *nix.RealStore, want map[nix.StorePath]bool) {
	t.Helper()
	for path, expected := range want {
		got, err := store.Valid(t.Context(), path)
		if err != nil || got != expected {
			t.Errorf("Valid(%s) = %v, %v; want %v", path, got, err, expected)
		}
	}
}
