// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/cache/informertest"
)

func TestNewRefusesIncompleteOptions(t *testing.T) {
	dir, _ := serverCertificate(t)
	informers := &informertest.FakeInformers{Scheme: testScheme()}
	config := &rest.Config{Host: "http://127.0.0.1:1"}
	tests := map[string]struct {
		options Options
		says    string
	}{
		"no config":          {Options{Cache: informers, CertDir: dir}, "Config"},
		"no cache":           {Options{Config: config, CertDir: dir}, "Cache"},
		"no certificate dir": {Options{Config: config, Cache: informers}, "CertDir"},
		"no certificate":     {Options{Config: config, Cache: informers, CertDir: t.TempDir()}, "tls.crt"},
		"impersonation": {Options{Config: &rest.Config{Host: config.Host, Impersonate: rest.ImpersonationConfig{UserName: "admin"}}, Cache: informers, CertDir: dir},
			"impersonates admin"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if _, err := New(tt.options); err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("New = %v, want an error with %q", err, tt.says)
			}
		})
	}
}

func TestStartSaysThatThePortIsTaken(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close() //nolint:errcheck // Only held.
	dir, _ := serverCertificate(t)
	g, err := New(Options{
		Config: &rest.Config{Host: "http://127.0.0.1:1"}, Cache: &informertest.FakeInformers{Scheme: testScheme()},
		CertDir: dir, BindAddress: taken.Addr().String(),
	})
	if err != nil {
		t.Fatal(err)
	}
	if g.Ready(nil) == nil {
		t.Error("ready before it listens")
	}
	if err := g.Start(context.Background()); !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), taken.Addr().String()) {
		t.Errorf("Start = %v, want one that the address is in use", err)
	}
}

func TestEveryReplicaServes(t *testing.T) {
	if (&Gateway{}).NeedLeaderElection() {
		t.Error("only the leader would serve")
	}
}

func TestSeveralGatewaysShareARegistry(t *testing.T) {
	registry := prometheus.NewRegistry()
	one, err := newMetrics(registry)
	if err != nil {
		t.Fatal(err)
	}
	two, err := newMetrics(registry)
	if err != nil {
		t.Fatal(err)
	}
	one.streams.Inc()
	two.streams.Inc()
	if n := testutil.ToFloat64(one.streams); n != 2 {
		t.Errorf("%v streams were counted, want those of both", n)
	}
}

func TestCertificateIsReloaded(t *testing.T) {
	key := newKey(t)
	var dir string
	h := start(t, func(o *Options) { dir = o.CertDir })
	h.informer.Add(newHost(t, "web-01", "5", key))
	before := h.client(key, true)
	if got := h.do(before, http.MethodGet, hostsPath+"/web-01", nil, nil); got.code != http.StatusOK {
		t.Fatalf("answered %d", got.code)
	}
	renewed, roots := serverCertificate(t)
	// The key first: until both are there they do not fit and are not taken.
	for _, name := range []string{KeyName, CertName} {
		if err := os.Rename(filepath.Join(renewed, name), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	waitFor(t, 30*time.Second, "the new certificate", func() bool {
		conn, err := tls.Dial("tcp", h.url[len("https://"):], &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13})
		if err != nil {
			return false
		}
		return conn.Close() == nil
	})
	if got := h.do(before, http.MethodGet, hostsPath+"/web-01", nil, nil); got.code != http.StatusOK {
		t.Errorf("a connection from before is answered %d", got.code)
	}
}
