// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package manager

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	ctrlmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/controller-runtime/pkg/metrics/filters"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/controllers/host"
	"github.com/nixfleet/nixfleet/controllers/release"
	"github.com/nixfleet/nixfleet/controllers/rollout"
	"github.com/nixfleet/nixfleet/internal/gateway"
	"github.com/nixfleet/nixfleet/internal/metrics"
)

// leaderElectionID names the Lease by which the leader is elected.
const leaderElectionID = "manager." + nfv1.GroupName

// syncWait is how long a readiness probe waits for the cache.
const syncWait = time.Second

// NewScheme returns a scheme with the kinds that the manager reads and writes.
func NewScheme() (*runtime.Scheme, error) {
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), nfv1.AddToScheme(scheme)); err != nil {
		return nil, fmt.Errorf("register kinds: %w", err)
	}
	return scheme, nil
}

// New returns a manager with every controller and, unless it is switched off, the
// gateway. cfg must not impersonate. The options are validated first; errors of New and
// of the manager's Start name the flag to change where there is one.
func New(cfg *rest.Config, o Options) (ctrl.Manager, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	scheme, err := NewScheme()
	if err != nil {
		return nil, err
	}
	cfg = rest.CopyConfig(cfg)
	if cfg.QPS == 0 {
		cfg.QPS = -1 // The API server limits by priority and fairness, which knows more.
	}
	inner, err := ctrl.NewManager(cfg, managerOptions(scheme, o))
	if err != nil {
		return nil, o.explain(fmt.Errorf("create manager: %w", err))
	}
	mgr := &explaining{Manager: inner, options: o}
	if err := addControllers(mgr, o); err != nil {
		return nil, err
	}
	if err := addProbes(mgr); err != nil {
		return nil, err
	}
	if !o.hasGateway() {
		return mgr, nil
	}
	return mgr, addGateway(mgr, cfg, o)
}

func managerOptions(scheme *runtime.Scheme, o Options) ctrl.Options {
	return ctrl.Options{
		Scheme: scheme,
		Logger: o.Log,
		Cache: cache.Options{
			ByObject:         host.CacheOptions(),
			DefaultTransform: trim,
		},
		// A controller that decides on a state from before its own last write would
		// assign hosts twice.
		Client:                        client.Options{Cache: &client.CacheOptions{EnableReadYourWritesConsistency: ptr.To(true)}},
		LeaderElection:                o.LeaderElect,
		LeaderElectionID:              leaderElectionID,
		LeaderElectionNamespace:       o.LeaderElectionNamespace,
		LeaderElectionReleaseOnCancel: true, // The programs end when the manager does.
		Metrics:                       metricsOptions(o),
		HealthProbeBindAddress:        addressOrOff(o.HealthProbeBindAddress),
		// Names are unique within a manager; a process may have several, one after the
		// other, when it embeds them.
		Controller: config.Controller{SkipNameValidation: ptr.To(true)},
	}
}

func metricsOptions(o Options) metricsserver.Options {
	out := metricsserver.Options{BindAddress: addressOrOff(o.MetricsBindAddress)}
	if o.MetricsSecure {
		out.SecureServing, out.CertDir = true, o.MetricsCertDir
		out.FilterProvider = filters.WithAuthenticationAndAuthorization
		out.TLSOpts = []func(*tls.Config){func(c *tls.Config) { c.MinVersion = tls.VersionTLS13 }}
	}
	return out
}

func addressOrOff(address string) string {
	if isOn(address) {
		return address
	}
	return off
}

func addControllers(mgr ctrl.Manager, o Options) error {
	if err := host.SetupWithManager(mgr, host.Options{OfflineAfter: o.HostOfflineAfter, Concurrency: o.Concurrency}); err != nil {
		return fmt.Errorf("add the host controller: %w", err)
	}
	if err := release.SetupWithManager(mgr, release.Options{Concurrency: o.Concurrency}); err != nil {
		return fmt.Errorf("add the release controller: %w", err)
	}
	counted, err := addMetrics(mgr)
	if err != nil {
		return err
	}
	err = rollout.SetupWithManager(mgr, rollout.Options{OfflineWindow: o.HostOfflineAfter, Concurrency: o.Concurrency, Metrics: counted})
	if err != nil {
		return fmt.Errorf("add the rollout controller: %w", err)
	}
	return nil
}

// addMetrics lets the manager count its fleet while it leads, and returns what the rollout
// controller counts with.
func addMetrics(mgr ctrl.Manager) (*metrics.Recorder, error) {
	fleet, err := metrics.NewFleet(ctrlmetrics.Registry, mgr.GetCache(), mgr.GetLogger().WithName("metrics"))
	if err != nil {
		return nil, err
	}
	if err := mgr.Add(fleet); err != nil {
		return nil, fmt.Errorf("add the metrics of the fleet: %w", err)
	}
	return metrics.NewRecorder(ctrlmetrics.Registry)
}

func addGateway(mgr ctrl.Manager, cfg *rest.Config, o Options) error {
	g, err := gateway.New(gateway.Options{
		Config: cfg, Cache: mgr.GetCache(), CertDir: o.GatewayCertDir,
		BindAddress: o.GatewayBindAddress, Listener: o.GatewayListener,
		Registry: ctrlmetrics.Registry, Log: mgr.GetLogger().WithName("gateway"),
	})
	if err != nil {
		return fmt.Errorf("%w (--%s)", err, flagGatewayCertDir)
	}
	if err := mgr.Add(g); err != nil {
		return fmt.Errorf("add the gateway: %w", err)
	}
	if err := mgr.AddReadyzCheck("gateway", g.Ready); err != nil {
		return fmt.Errorf("add the gateway's probe: %w", err)
	}
	return nil
}

func addProbes(mgr ctrl.Manager) error {
	if err := mgr.AddHealthzCheck("ping", healthz.Ping); err != nil {
		return fmt.Errorf("add probe: %w", err)
	}
	if err := mgr.AddReadyzCheck("cache", func(r *http.Request) error { return synced(r.Context(), mgr.GetCache()) }); err != nil {
		return fmt.Errorf("add probe: %w", err)
	}
	return nil
}

func synced(ctx context.Context, c cache.Cache) error {
	ctx, cancel := context.WithTimeout(ctx, syncWait)
	defer cancel()
	if !c.WaitForCacheSync(ctx) {
		return errors.New("the cache has not seen every object yet")
	}
	return nil
}

// explaining is a manager whose errors name the flag to change.
type explaining struct {
	ctrl.Manager
	options Options
}

// Start runs the manager until ctx ends.
func (m *explaining) Start(ctx context.Context) error {
	return m.options.explain(m.Manager.Start(ctx))
}

// explain adds to an error about a port that cannot be opened whose port it is.
func (o *Options) explain(err error) error {
	var failed *net.OpError
	if !errors.As(err, &failed) || failed.Op != "listen" || failed.Addr == nil {
		return err
	}
	for flag, address := range o.addresses() {
		if resolved, e := net.ResolveTCPAddr("tcp", address); e == nil && resolved.String() == failed.Addr.String() {
			return fmt.Errorf(`%w; choose another address with --%s, or "0" for none`, err, flag)
		}
	}
	return err
}
