// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package nix

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseCacheURL(t *testing.T) {
	good := map[string]string{
		"https://cache.example.org":        "https://cache.example.org",
		"https://cache.example.org/":       "https://cache.example.org",
		"http://127.0.0.1:8080/fleet/main": "http://127.0.0.1:8080/fleet/main",
		"http://[::1]:5000":                "http://[::1]:5000",
	}
	for in, want := range good {
		if got, err := ParseCacheURL(in); err != nil || got != want {
			t.Errorf("ParseCacheURL(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
	bad := []string{
		"", "cache.example.org", "/nix/store", "//cache.example.org", "https://", "https:cache.example.org", "http://:80",
		"file:///srv/cache", "s3://bucket", "ssh://host", "daemon", "local?root=/", "dummy://",
		"https://cache.example.org?trusted=1", "https://cache.example.org/?", "https://cache.example.org/#x", "https://cache.example.org/#",
		"https://cache.example.org/%3Ftrusted=1", "https://cache.example.org/a%20b", "https://cache.example.org/a%0ab",
		"https://user:secret@cache.example.org", "https://user@cache.example.org",
		"https://a.example.org https://b.example.org", "https://a.example.org\n", "https://a.example.org\\x", "https://exämple.org", "https://a\x00b",
	}
	for _, in := range bad {
		got, err := ParseCacheURL(in)
		if !errors.Is(err, ErrInvalidCacheURL) || got != "" {
			t.Errorf("ParseCacheURL(%q) = %q, %v; want ErrInvalidCacheURL", in, got, err)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("the error shows a password: %v", err)
		}
	}
}

func TestParseCacheURLs(t *testing.T) {
	got, err := ParseCacheURLs([]string{"https://b.example.org/", "https://a.example.org", "https://b.example.org"})
	if diff := cmp.Diff([]string{"https://b.example.org", "https://a.example.org"}, got); diff != "" || err != nil {
		t.Errorf("%v, (-want +got):\n%s", err, diff)
	}
	if got, err := ParseCacheURLs([]string{"https://a.example.org", "file:///x"}); err == nil || got != nil {
		t.Errorf("got %q, %v; one bad URL refuses all", got, err)
	}
}
