// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package metrics

import (
	"errors"
	"fmt"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
)

// NewCounterVec makes the counter that the table declares under a name. It panics if the
// table does not, as the other constructors do: that is a mistake in the program.
func NewCounterVec(name string) *prometheus.CounterVec {
	d := mustFind(name, Counter)
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: d.Name, Help: d.Help}, d.labelNames())
}

// NewHistogramVec makes the histogram that the table declares under a name.
func NewHistogramVec(name string) *prometheus.HistogramVec {
	d := mustFind(name, Histogram)
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: d.Name, Help: d.Help, Buckets: d.Buckets}, d.labelNames())
}

// NewGauge makes the gauge without labels that the table declares under a name.
func NewGauge(name string) prometheus.Gauge {
	d := mustFind(name, Gauge)
	return prometheus.NewGauge(prometheus.GaugeOpts{Name: d.Name, Help: d.Help})
}

// newDesc describes a metric whose values are made when Prometheus asks.
func newDesc(name string) *prometheus.Desc {
	d := mustFind(name, Gauge)
	return prometheus.NewDesc(d.Name, d.Help, d.labelNames(), nil)
}

func mustFind(name string, kind Type) Definition {
	table := Table()
	i := slices.IndexFunc(table, func(d Definition) bool { return d.Name == name && d.Type == kind })
	if i < 0 {
		panic(fmt.Sprintf("the table of metrics declares no %s %s", kind, name))
	}
	return table[i]
}

// Register registers a collector, or takes the one of the same kind that an earlier user
// of the registry has registered: a process may have several managers, one after the other.
func Register[C prometheus.Collector](registry prometheus.Registerer, c *C) error {
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
