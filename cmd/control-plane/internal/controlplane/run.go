// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package controlplane

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"

	"github.com/nixfleet/nixfleet/cmd/control-plane/internal/apiserver"
	"github.com/nixfleet/nixfleet/cmd/control-plane/internal/bootstrap"
	"github.com/nixfleet/nixfleet/cmd/control-plane/internal/controllers"
	"github.com/nixfleet/nixfleet/cmd/control-plane/internal/datadir"
	"github.com/nixfleet/nixfleet/cmd/control-plane/internal/etcd"
	"github.com/nixfleet/nixfleet/cmd/control-plane/internal/kubeconfig"
	"github.com/nixfleet/nixfleet/cmd/control-plane/internal/options"
	"github.com/nixfleet/nixfleet/cmd/control-plane/internal/pki"
	"github.com/nixfleet/nixfleet/cmd/control-plane/internal/stack"
	"github.com/nixfleet/nixfleet/config"
)

// Run runs a control plane with valid options until ctx is done, and returns
// when every part has stopped and the data directory is free again. A part
// that ends by itself ends all; the error says which.
func Run(ctx context.Context, o *options.Options, log logr.Logger) (err error) {
	dir, err := datadir.Open(o.DataDir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	open, err := listen(o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, open.close()) }()
	certificates, err := pki.Ensure(pki.Config{
		Dir:          dir.PKI(),
		APIHosts:     o.APIHosts(),
		GatewayHosts: o.GatewayHosts(),
		Now:          clock.RealClock{}.Now,
		Log:          log.WithName("pki"),
	})
	if err != nil {
		return err
	}

	p := &plane{options: o, dir: dir, listeners: open, certificates: certificates, notifier: takeNotifier(log), log: log}
	p.stack = stack.New(ctx, log)
	defer func() { err = errors.Join(err, p.stop()) }()
	if err := p.start(); err != nil && p.stack.Context().Err() == nil {
		return err
	}
	// A start that was cut short ends here at once: what counts is not how the
	// next part failed then, but who cut it short.
	<-p.stack.Context().Done()
	return failure(p.stack.Context())
}

// plane is a control plane while it runs.
type plane struct {
	options      *options.Options
	dir          *datadir.Dir
	listeners    *listeners
	certificates *pki.Bundle
	notifier     *notifier
	stack        *stack.Stack
	log          logr.Logger
}

// start starts the parts from the bottom to the top. The order is also that of
// trust: policies are stored before the manager's rights, and agents are let
// in last.
func (p *plane) start() error {
	begin := time.Now()
	ctx := p.stack.Context()
	store, err := etcd.Start(ctx, p.dir.Etcd(), p.log)
	if err != nil {
		return err
	}
	p.stack.Start("etcd", store.Run)

	api, err := p.startAPI(ctx, store)
	if err != nil {
		return err
	}
	if err := bootstrap.Apply(ctx, api.Loopback(), config.FS); err != nil {
		return fmt.Errorf("prepare the API: %w", err)
	}
	if err := p.startControllers(ctx, api.Loopback()); err != nil {
		return err
	}
	if err := p.startManager(); err != nil {
		return err
	}
	p.announce(time.Since(begin))
	return nil
}

func (p *plane) startAPI(ctx context.Context, store *etcd.Server) (*apiserver.Server, error) {
	api, err := apiserver.New(ctx, apiserver.Config{
		Listener:     p.listeners.api,
		EtcdEndpoint: store.Endpoint(),
		Certificates: p.certificates,
	})
	if err != nil {
		return nil, err
	}
	p.stack.Start("API server", api.Run)
	if err := api.WaitReady(ctx); err != nil {
		return nil, err
	}
	server := localURL(p.listeners.api.Addr())
	if err := kubeconfig.Write(p.dir.AdminKubeconfig(), server, p.certificates.CA.CertFile, p.certificates.Admin); err != nil {
		return nil, err
	}
	return api, nil
}

func (p *plane) startControllers(ctx context.Context, loopback *rest.Config) error {
	// Their informers are made for a context that outlives the start.
	set, err := controllers.New(context.WithoutCancel(ctx), loopback)
	if err != nil {
		return err
	}
	p.stack.Start("controllers", func(ctx context.Context) error {
		set.Run(ctx)
		return nil
	})
	return nil
}

func (p *plane) announce(took time.Duration) {
	p.log.Info("The control plane is ready",
		"api", localURL(p.listeners.api.Addr()),
		"gateway", p.listeners.gateway.Addr().String(),
		"dataDir", p.dir.Path(),
		"kubeconfig", p.dir.AdminKubeconfig(),
		"took", took.Round(time.Millisecond).String(),
	)
	p.notifier.ready()
}

func (p *plane) stop() error {
	begin := time.Now()
	p.notifier.stopping()
	err := p.stack.Stop()
	p.log.Info("The control plane has stopped", "dataDir", p.dir.Path(), "took", time.Since(begin).Round(time.Millisecond).String())
	return err
}

// failure is the part that ended by itself, or nil when ctx was cancelled from
// outside.
func failure(ctx context.Context) error {
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}
