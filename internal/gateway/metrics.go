// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package gateway

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics counts requests. No label names a host: a fleet would make thousands of
// series of each.
type metrics struct {
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	refused  *prometheus.CounterVec
	streams  prometheus.Gauge
}

func newMetrics(registry prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "nixfleet_gateway_requests_total",
			Help: "Requests of agents that have been answered, by verb, resource and HTTP code. Requests that the gateway does not serve have verb and resource other.",
		}, []string{"verb", "resource", "code"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "nixfleet_gateway_request_duration_seconds",
			Help:    "Time taken to answer a request, watches left out.",
			Buckets: prometheus.ExponentialBuckets(0.001, 4, 8),
		}, []string{"verb", "resource"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "nixfleet_gateway_refused_total",
			Help: "Requests that were not carried out, by cause.",
		}, []string{"cause"}),
		streams: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "nixfleet_gateway_open_streams",
			Help: "Watches that are open.",
		}),
	}
	err := errors.Join(
		register(registry, &m.requests), register(registry, &m.duration), register(registry, &m.refused), register(registry, &m.streams),
	)
	if err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return m, nil
}

// register registers a collector, or takes the one that an earlier gateway of the same
// process has registered.
func register[C prometheus.Collector](registry prometheus.Registerer, c *C) error {
	err := registry.Register(*c)
	var there prometheus.AlreadyRegisteredError
	if errors.As(err, &there) {
		if existing, ok := there.ExistingCollector.(C); ok {
			*c = existing
			return nil
		}
	}
	return err
}

func (m *metrics) answered(a action, code int, took time.Duration) {
	rule := a.rule()
	m.requests.WithLabelValues(rule.verb, rule.resource, strconv.Itoa(code)).Inc()
	if a != actionWatch {
		m.duration.WithLabelValues(rule.verb, rule.resource).Observe(took.Seconds())
	}
}
