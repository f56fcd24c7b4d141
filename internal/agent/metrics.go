// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/version"
)

// metrics are what the agent can be watched by on its host. Their labels have a fixed set
// of values.
type metrics struct {
	registry   *prometheus.Registry
	phase      *prometheus.GaugeVec
	attempts   *prometheus.CounterVec
	fetched    prometheus.Counter
	checks     *prometheus.GaugeVec
	revision   prometheus.Gauge
	lastReport prometheus.Gauge

	mu   sync.Mutex
	seen int64 // bytes of the fetch that is under way
}

// phases are all values of the label of the same name.
var phases = append([]nfv1.HostPhase{nfv1.HostPhaseIdle}, steps...)

// newMetrics makes the metrics of an agent. Connected tells whether the control plane
// answers.
func newMetrics(connected func() bool) *metrics {
	gauge := func(name, help string) prometheus.GaugeOpts {
		return prometheus.GaugeOpts{Namespace: "nixfleet_agent", Name: name, Help: help}
	}
	m := &metrics{
		registry: prometheus.NewRegistry(),
		phase:    prometheus.NewGaugeVec(gauge("phase", "1 for the phase that the agent is in."), []string{"phase"}),
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "nixfleet_agent", Name: "attempts_total", Help: "Attempts that have ended, by outcome, since the agent started.",
		}, []string{"outcome"}),
		fetched: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: "nixfleet_agent", Name: "fetched_bytes_total", Help: "Bytes downloaded from binary caches since the agent started.",
		}),
		checks:     prometheus.NewGaugeVec(gauge("health_checks", "Health checks by what their last run said."), []string{"state"}),
		revision:   prometheus.NewGauge(gauge("observed_revision", "The highest revision of spec.desired that was taken up.")),
		lastReport: prometheus.NewGauge(gauge("last_report_timestamp_seconds", "When the control plane took the last report. 0 before the first.")),
	}
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Namespace: "nixfleet_agent", Name: "build_info", Help: "1, with the version of the agent.", ConstLabels: prometheus.Labels{"version": version.String()},
	})
	info.Set(1)
	for _, o := range []nfv1.AttemptOutcome{nfv1.AttemptSucceeded, nfv1.AttemptRolledBack, nfv1.AttemptFailed, nfv1.AttemptRefused} {
		m.attempts.WithLabelValues(string(o))
	}
	m.registry.MustRegister(m.phase, m.attempts, m.fetched, m.checks, m.revision, m.lastReport, info,
		prometheus.NewGaugeFunc(gauge("connected", "1 if the last exchange with the control plane went well."), func() float64 { return one(connected()) }),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func one(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// observe takes over what the machine is doing.
func (m *metrics) observe(from *Machine) {
	if m == nil {
		return
	}
	now := nfv1.HostPhaseIdle
	if o := from.journal.Open; o != nil {
		now = o.Step
	}
	for _, p := range phases {
		m.phase.WithLabelValues(string(p)).Set(one(p == now))
	}
	m.revision.Set(float64(from.journal.ObservedRevision))
	if from.results == nil {
		return // nothing was looked at yet
	}
	count := map[nfv1.HealthState]int{}
	for _, r := range from.results {
		count[r.State]++
	}
	for _, s := range []nfv1.HealthState{nfv1.HealthStateHealthy, nfv1.HealthStateUnhealthy} {
		m.checks.WithLabelValues(string(s)).Set(float64(count[s]))
	}
}

func (m *metrics) ended(outcome nfv1.AttemptOutcome) {
	if m != nil {
		m.attempts.WithLabelValues(string(outcome)).Inc()
	}
}

// progress is told how many bytes a fetch has brought so far; one that begins again starts
// at nothing.
func (m *metrics) progress(bytes int64) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if bytes < m.seen {
		m.seen = 0
	}
	m.fetched.Add(float64(max(bytes-m.seen, 0)))
	m.seen = max(bytes, 0)
}

func (m *metrics) reported(at time.Time) {
	if m != nil {
		m.lastReport.Set(float64(at.UnixMilli()) / 1000)
	}
}

// serveMetrics serves them until ctx ends. They are for this machine alone: what collects
// them runs on it.
func serveMetrics(ctx context.Context, m *metrics, port int, log *slog.Logger) error {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return fmt.Errorf("metricsPort: %w", err)
	}
	m.serve(ctx, listener, log)
	return nil
}

func (m *metrics) serve(ctx context.Context, listener net.Listener, log *slog.Logger) {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{}))
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second}
	go func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			log.Error("Metrics are not served any more", "error", err)
		}
	}()
	context.AfterFunc(ctx, func() { _ = server.Close() })
}
