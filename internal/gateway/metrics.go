// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package gateway

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/nixfleet/nixfleet/internal/metrics"
)

// measures counts requests. What each metric means is declared in internal/metrics. No
// label names a host: a fleet would make thousands of series of each.
type measures struct {
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	refused  *prometheus.CounterVec
	streams  prometheus.Gauge
}

func newMetrics(registry prometheus.Registerer) (*measures, error) {
	m := &measures{
		requests: metrics.NewCounterVec(metrics.GatewayRequests),
		duration: metrics.NewHistogramVec(metrics.GatewayRequestSeconds),
		refused:  metrics.NewCounterVec(metrics.GatewayRefused),
		streams:  metrics.NewGauge(metrics.GatewayOpenStreams),
	}
	err := errors.Join(
		metrics.Register(registry, &m.requests), metrics.Register(registry, &m.duration),
		metrics.Register(registry, &m.refused), metrics.Register(registry, &m.streams),
	)
	if err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return m, nil
}

func (m *measures) answered(a action, code int, took time.Duration) {
	rule := a.rule()
	m.requests.WithLabelValues(rule.verb, rule.resource, strconv.Itoa(code)).Inc()
	if a != actionWatch {
		m.duration.WithLabelValues(rule.verb, rule.resource).Observe(took.Seconds())
	}
}
