// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package apiserver

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	aggregator "k8s.io/kube-aggregator/pkg/apiserver"
)

const (
	// shutdownTimeout is how long connections may take to end. Upstream waits
	// for as long as a request may last, a minute.
	shutdownTimeout = 3 * time.Second

	// readyTimeout is generous: a slow disk may take its time for the first
	// writes of the built-in roles.
	readyTimeout  = 2 * time.Minute
	readyInterval = 50 * time.Millisecond
)

// Server is an API server that has been assembled.
type Server struct {
	first *aggregator.APIAggregator
}

// New assembles the API server. It neither serves nor writes before Run.
func New(ctx context.Context, cfg Config) (*Server, error) {
	options := newOptions(cfg)
	// Feature gates get their final values before anything asks for them.
	if err := options.GenericServerRunOptions.ComponentGlobalsRegistry.Set(); err != nil {
		return nil, fmt.Errorf("feature gates of the API server: %w", err)
	}
	completed, err := options.Complete(ctx, nil, nil)
	if err != nil {
		return nil, fmt.Errorf("options of the API server: %w", err)
	}
	if err := errors.Join(completed.Validate()...); err != nil {
		return nil, fmt.Errorf("options of the API server: %w", err)
	}
	configs, err := newConfigs(completed)
	if err != nil {
		return nil, fmt.Errorf("configure the API server: %w", err)
	}
	first, err := configs.chain()
	if err != nil {
		return nil, fmt.Errorf("assemble the API server: %w", err)
	}
	first.GenericAPIServer.ShutdownTimeout = shutdownTimeout
	return &Server{first: first}, nil
}

// Loopback is a client configuration with every right, for this process alone.
// It has no rate limit: the server's own fairness applies.
func (s *Server) Loopback() *rest.Config {
	config := rest.CopyConfig(s.first.GenericAPIServer.LoopbackClientConfig)
	config.QPS = -1
	return config
}

// Run serves until ctx is done, then ends open requests and watches and
// returns nil. The store must stay reachable until Run returns.
func (s *Server) Run(ctx context.Context) error {
	prepared, err := s.first.PrepareRun()
	if err != nil {
		return fmt.Errorf("prepare: %w", err)
	}
	return prepared.Run(ctx)
}

// WaitReady returns when /readyz says so; the built-in roles and namespaces
// exist then. The error repeats what /readyz said last.
func (s *Server) WaitReady(ctx context.Context) error {
	client, err := kubernetes.NewForConfig(s.Loopback())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, readyTimeout, fmt.Errorf("not ready after %s", readyTimeout))
	defer cancel()
	var last string
	// There is nothing to watch before the server is ready.
	err = wait.PollUntilContextCancel(ctx, readyInterval, true, func(ctx context.Context) (bool, error) {
		var status int
		body, err := client.RESTClient().Get().AbsPath("/readyz").Param("verbose", "true").Do(ctx).StatusCode(&status).Raw()
		last = string(body)
		if err != nil && status == 0 {
			last = err.Error()
		}
		return status == http.StatusOK, nil
	})
	if err != nil {
		return fmt.Errorf("wait for the API server: %w; it last said: %s", context.Cause(ctx), last)
	}
	return nil
}
