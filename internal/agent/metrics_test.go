// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package agent

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"k8s.io/utils/clock"

	"github.com/nixfleet/nixfleet/internal/nix"
)

func fetchProgress(done, total int64) nix.FetchProgress {
	return nix.FetchProgress{BytesDone: done, BytesTotal: total, PathsDone: 1, PathsTotal: 2}
}

// scrape is what a Prometheus on the host would read.
func scrape(t *testing.T, m *metrics) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m.serve(t.Context(), listener, slog.New(slog.DiscardHandler))
	resp, err := http.Get("http://" + listener.Addr().String() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func wantLines(t *testing.T, text string, lines ...string) {
	t.Helper()
	for _, line := range lines {
		if !strings.Contains(text, "\n"+line) {
			t.Errorf("no %q in:\n%s", line, text)
		}
	}
}

// TestMetricsOfAMove follow an agent that moves its host and goes back.
func TestMetricsOfAMove(t *testing.T) {
	b := newBody(t)
	b.bad[newSystem] = true
	g := newFakeGateway(t, order1())
	client := g.client(t)
	m := b.start(t, "boot-1")
	m.host, m.Clock, m.Metrics = nil, clock.RealClock{}, newMetrics(client.Reachable)
	wantLines(t, scrape(t, m.Metrics), "nixfleet_agent_connected 0", "nixfleet_agent_last_report_timestamp_seconds 0", `nixfleet_agent_attempts_total{outcome="Succeeded"} 0`)
	a := newAgent(m, client, time.Minute, slog.New(slog.DiscardHandler))
	done := make(chan struct{})
	go func() {
		defer close(done)
		a.run(t.Context())
	}()
	t.Cleanup(func() { <-done })
	g.await(t, "the outcome", g.ended(1))
	text := scrape(t, m.Metrics)
	look, over := time.NewTicker(10*time.Millisecond), time.After(eventually)
	defer look.Stop()
	for strings.Contains(text, "\nnixfleet_agent_last_report_timestamp_seconds 0") { // the answer is on its way
		select {
		case <-look.C:
			text = scrape(t, m.Metrics)
		case <-over:
			t.Fatal("no report counts")
		}
	}
	wantLines(t, text, `nixfleet_agent_phase{phase="Idle"} 1`, `nixfleet_agent_phase{phase="RollingBack"} 0`,
		`nixfleet_agent_attempts_total{outcome="RolledBack"} 1`, `nixfleet_agent_attempts_total{outcome="Succeeded"} 0`,
		`nixfleet_agent_health_checks{state="Healthy"} 1`, `nixfleet_agent_health_checks{state="Unhealthy"} 0`,
		"nixfleet_agent_connected 1", "nixfleet_agent_observed_revision 1", "nixfleet_agent_last_report_timestamp_seconds 1.", "nixfleet_agent_build_info{version=")
}

// TestMetricsOfFetches add up what several of them bring.
func TestMetricsOfFetches(t *testing.T) {
	m := newMetrics(func() bool { return false })
	for _, bytes := range []int64{10, 30, 30, 5, 100, 0, 7} {
		m.progress(bytes)
	}
	wantLines(t, scrape(t, m), "nixfleet_agent_fetched_bytes_total 137")
}

// TestMetricsStayOnTheHost: nobody else can reach them.
func TestMetricsStayOnTheHost(t *testing.T) {
	probe, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address, ok := probe.Addr().(*net.TCPAddr)
	if err := probe.Close(); err != nil || !ok {
		t.Fatal(err, ok)
	}
	m := newMetrics(func() bool { return true })
	if err := serveMetrics(t.Context(), m, address.Port, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	// What is bound to every address keeps this one from being bound.
	other, err := net.Listen("tcp", net.JoinHostPort("127.0.0.2", strings.TrimPrefix(address.String(), "127.0.0.1:")))
	if err != nil {
		t.Fatalf("metrics are served at more than 127.0.0.1: %v", err)
	}
	_ = other.Close()
	if err := serveMetrics(t.Context(), m, address.Port, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "metricsPort") {
		t.Errorf("the port is taken: %v", err)
	}
}
