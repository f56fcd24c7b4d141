// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package agent

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/identity"
)

// TestStatusInTheMiddleOfAnAttempt says what is under way and how to go back, in each form,
// and even if the configuration is broken.
func TestStatusInTheMiddleOfAnAttempt(t *testing.T) {
	b := newBody(t)
	b.killIn = "test"
	if !b.live(t, "boot-1") {
		t.Fatal("the agent was not killed")
	}
	root := t.TempDir()
	args := []string{"status", "--config", "", "--server", "https://a", "--ca-file", "/c", "--host-name", "h", "--trusted-public-key", testKey, "--root", root, "--state-dir", b.dir}
	got, err := command(t, args...)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"In progress:", "revision 1, Activating", "nixfleet-agent rollback --attempt 1", "no dead man's switch", oldSystem.String()} {
		if !strings.Contains(got, part) {
			t.Errorf("%q is not in:\n%s", part, got)
		}
	}
	got, err = command(t, append(args, "-o", "yaml")...)
	var s localStatus
	if err == nil {
		err = yaml.UnmarshalStrict([]byte(got), &s)
	}
	if err != nil || s.Attempt == nil || s.Attempt.Target.Path != newSystem || s.Journal.Open == nil || s.Journal.Open.Step != nfv1.HostPhaseActivating {
		t.Errorf("%v in:\n%s", err, got)
	}
	got, err = command(t, "status", "--config", filepath.Join(root, "none"), "--state-dir", b.dir, "--root", root)
	if err == nil || !strings.Contains(got, "In progress:") {
		t.Errorf("without a configuration: %v\n%s", err, got)
	}
	if _, err := command(t, append(args, "-o", "xml")...); err == nil || !strings.Contains(err.Error(), "json or yaml") {
		t.Errorf("another form: %v", err)
	}
}

// TestIdentityAsHost prints a Host that the control plane takes as it is.
func TestIdentityAsHost(t *testing.T) {
	dir := t.TempDir()
	args := []string{"identity", "--config", "", "--server", "https://a", "--ca-file", "/c", "--host-name", "web-01", "--namespace", "fleet",
		"--platform", "aarch64-linux", "--trusted-public-key", testKey, "--root", dir}
	got, err := command(t, append(args, "-o", "yaml")...)
	if err != nil {
		t.Fatal(err)
	}
	var h nfv1.Host
	if err := yaml.UnmarshalStrict([]byte(got), &h); err != nil {
		t.Fatalf("%v in:\n%s", err, got)
	}
	if h.Kind != "Host" || h.APIVersion != "nixfleet.io/v1alpha1" || h.Name != "web-01" || h.Namespace != "fleet" || h.Spec.Platform != "aarch64-linux" || len(h.Spec.Identity.PublicKeys) != 1 {
		t.Fatalf("got %+v", h)
	}
	line, err := command(t, args...)
	if first, _, _ := strings.Cut(line, "\n"); err != nil || first != h.Spec.Identity.PublicKeys[0] {
		t.Errorf("%v: another key: %s", err, line)
	}
	if _, err := identity.ParsePin(h.Spec.Identity.PublicKeys[0]); err != nil {
		t.Error(err)
	}
	if strings.Contains(got, "status") {
		t.Errorf("it has more than is needed:\n%s", got)
	}
	if _, err := command(t, append(args, "-o", "json")...); err == nil {
		t.Error("another form")
	}
}

// TestCheckLooksAtCachesAndHealth of a host that has had an order.
func TestCheckLooksAtCachesAndHealth(t *testing.T) {
	cache := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/nix-cache-info" {
			_, _ = w.Write([]byte("StoreDir: /nix/store\n"))
		}
	}))
	t.Cleanup(cache.Close)
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	root := t.TempDir()
	state := filepath.Join(root, "var/lib/nixfleet")
	etc := filepath.Join(root, newSystem.String(), "etc/nixfleet")
	for _, dir := range []string{state, etc, filepath.Join(root, "run")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	checks := `{"checks":[{"name":"up","type":"http","http":{"url":"` + cache.URL + `"}},{"name":"down","type":"tcp","tcp":{"address":"` + strings.TrimPrefix(gone.URL, "http://") + `"}}]}`
	if err := os.WriteFile(filepath.Join(etc, "health-checks.json"), []byte(checks), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(newSystem.String(), filepath.Join(root, "run/current-system")); err != nil {
		t.Fatal(err)
	}
	h := order1()
	h.Spec.Desired.Caches = []nfv1.CacheURL{nfv1.CacheURL(cache.URL), nfv1.CacheURL(gone.URL)}
	if err := NewJournalFile(state, time.Now).Save(Journal{Host: h}); err != nil {
		t.Fatal(err)
	}
	got, err := command(t, "check", "--config", "", "--server", "https://127.0.0.1:1", "--ca-file", "/none", "--host-name", "h", "--trusted-public-key", testKey, "--root", root)
	if err == nil {
		t.Error("it passed")
	}
	for _, line := range []string{
		"configuration  ok\n", "state          ok", "profile        ok: there is none yet", "systemd        warning: it does not run this host",
		"cache          ok: " + cache.URL + "\n", "cache          failed: ", "the last order named it",
		"running        ok: " + newSystem.String() + "\n", "health         ok: up\n", "health         failed: down: ", "identity       failed: ",
	} {
		if !strings.Contains(got, line) {
			t.Errorf("no line %q in:\n%s", line, got)
		}
	}
	if entries, err := os.ReadDir(state); err != nil || len(entries) != 1 {
		t.Errorf("it left %v behind, %v", entries, err)
	}
}
