// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package gateway

import (
	"errors"
	"net"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/cache"
)

// DefaultBindAddress is where agents find the gateway: every interface, port 8443.
const DefaultBindAddress = ":8443"

// Names of the files in CertDir.
const (
	CertName = "tls.crt"
	KeyName  = "tls.key"
)

// Options says how a gateway works. Config, Cache and CertDir are required; everything
// else has a default.
type Options struct {
	// Config reaches the Kubernetes API for writes. It must be allowed to impersonate
	// AgentUser with the extra nixfleet.io/host, and must not impersonate by itself.
	Config *rest.Config
	// Cache gives the informer of Hosts. Only one watch of it is used.
	Cache cache.Informers
	// CertDir holds the server certificate and its key, CertName and KeyName. They are
	// read again when they change.
	CertDir string
	// BindAddress is the address to listen on. Default: DefaultBindAddress.
	BindAddress string
	// Listener is used instead of BindAddress if set. Start closes it.
	Listener net.Listener

	// Registry takes the metrics. Default: they are counted and shown nowhere.
	Registry prometheus.Registerer
	// Log is the access log: answers at level 1, refusals at level 0, at most a few a
	// second. Default: none.
	Log logr.Logger
	// Clock is what time is read from. Default: the real one.
	Clock clock.WithTickerAndDelayedExecution

	// RequestsPerSecond and Burst limit each host. Defaults: 5 and 30.
	RequestsPerSecond float64
	Burst             int
	// StreamsPerHost limits the open watches of each host. Default: 4, because agents
	// of two systems may overlap during an activation, each with a connection to spare.
	StreamsPerHost int
	// RequestTimeout bounds every request but watches, and WriteTimeout one event of a
	// watch. Default: 30 s each.
	RequestTimeout time.Duration
	WriteTimeout   time.Duration
	// BookmarkInterval is the time between bookmarks of a watch. Default: 1 min.
	BookmarkInterval time.Duration
	// MaxWatch is the longest that a watch stays open. Default: 1 h.
	MaxWatch time.Duration
	// ShutdownTimeout is how long requests have to finish. Default: 10 s.
	ShutdownTimeout time.Duration
}

func (o *Options) setDefaults() error {
	switch {
	case o.Config == nil:
		return errors.New("gateway: Config is required")
	case o.Cache == nil:
		return errors.New("gateway: Cache is required")
	case o.CertDir == "":
		return errors.New("gateway: CertDir is required")
	}
	if o.Registry == nil {
		o.Registry = prometheus.NewRegistry()
	}
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	if o.Log.GetSink() == nil {
		o.Log = logr.Discard()
	}
	setDefault(&o.BindAddress, DefaultBindAddress)
	setDefault(&o.RequestsPerSecond, 5)
	setDefault(&o.Burst, 30)
	setDefault(&o.StreamsPerHost, 4)
	setDefault(&o.RequestTimeout, 30*time.Second)
	setDefault(&o.WriteTimeout, 30*time.Second)
	setDefault(&o.BookmarkInterval, time.Minute)
	setDefault(&o.MaxWatch, time.Hour)
	setDefault(&o.ShutdownTimeout, 10*time.Second)
	return nil
}

func (o *Options) limits() limits {
	return limits{rate: rate.Limit(o.RequestsPerSecond), burst: o.Burst, streams: o.StreamsPerHost}
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
