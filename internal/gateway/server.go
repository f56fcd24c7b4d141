// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"github.com/go-logr/logr"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/certwatcher"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

// Bounds of a connection.
const (
	maxHeader         = 16 << 10
	maxStreamsPerConn = 16
	headerTimeout     = 10 * time.Second
	// idleTimeout is longer than the minute between two renewals of a Lease, so that an
	// agent keeps its connection.
	idleTimeout = 3 * time.Minute
	pingAfter   = 30 * time.Second
)

// peerKey is the context key of a request's peer.
type peerKey struct{}

// Start serves until ctx ends. It begins to listen only when the informer has delivered
// every Host: a gateway that does not know the fleet yet would refuse all of it.
func (g *Gateway) Start(ctx context.Context) error {
	if err := g.follow(ctx); err != nil {
		return err
	}
	listener, err := g.listen(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	failed := make(chan error, 2)
	server := g.server()
	go func() { failed <- g.certs.Start(ctx) }()
	go func() { failed <- server.ServeTLS(listener, "", "") }()
	close(g.serving)
	g.log.Info("Gateway listens", "address", listener.Addr().String())
	select {
	case <-ctx.Done():
		return g.shutdown(server)
	case err := <-failed:
		_ = server.Close() // The error that is returned says why.
		if err == nil {
			err = errors.New("the certificate is no longer watched")
		}
		return fmt.Errorf("gateway: %w", err)
	}
}

// Ready is a check for readyz: nil from when the gateway listens.
func (g *Gateway) Ready(*http.Request) error {
	select {
	case <-g.serving:
		return nil
	default:
		return errors.New("the gateway does not listen yet")
	}
}

// follow connects the hub to the informer and waits until it knows every Host.
func (g *Gateway) follow(ctx context.Context) error {
	informer, err := g.options.Cache.GetInformer(ctx, &nfv1.Host{})
	if err != nil {
		return fmt.Errorf("gateway: watch Hosts: %w", err)
	}
	registration, err := informer.AddEventHandler(g.hub)
	if err != nil {
		return fmt.Errorf("gateway: watch Hosts: %w", err)
	}
	if !toolscache.WaitForCacheSync(ctx.Done(), registration.HasSynced) {
		return fmt.Errorf("gateway: stopped before Hosts were known: %w", ctx.Err())
	}
	return nil
}

func (g *Gateway) listen(ctx context.Context) (net.Listener, error) {
	if g.options.Listener != nil {
		return g.options.Listener, nil
	}
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", g.options.BindAddress)
	if err != nil {
		return nil, fmt.Errorf("gateway: %w", err)
	}
	return listener, nil
}

func (g *Gateway) server() *http.Server {
	return &http.Server{
		Handler:   g,
		TLSConfig: tlsConfig(g.certs.GetCertificate),
		ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			return context.WithValue(ctx, peerKey{}, g.hub.connect(conn))
		},
		ConnState: func(conn net.Conn, state http.ConnState) {
			if state == http.StateClosed || state == http.StateHijacked {
				g.hub.disconnect(conn)
			}
		},
		MaxHeaderBytes:    maxHeader,
		ReadHeaderTimeout: headerTimeout, // Bounds the TLS handshake too.
		IdleTimeout:       idleTimeout,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: maxStreamsPerConn,
			SendPingTimeout:      pingAfter,
			WriteByteTimeout:     g.options.WriteTimeout,
		},
		// What the server would log are failed handshakes, which any scanner causes.
		ErrorLog: slog.NewLogLogger(logr.ToSlogHandler(g.log.V(1)), slog.LevelInfo),
	}
}

// tlsConfig asks for a client certificate and checks only that the client holds its key.
// Which keys are let in depends on the Host that a request names, and a client without
// a certificate deserves an answer that says so.
func tlsConfig(certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)) *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS13,
		GetCertificate: certificate,
		ClientAuth:     tls.RequestClientCert,
		// A resumed session would carry a client's key without a new proof.
		SessionTicketsDisabled: true,
		NextProtos:             []string{"h2", "http/1.1"},
	}
}

// shutdown ends the watches, lets other requests finish and closes what is left.
func (g *Gateway) shutdown(server *http.Server) error {
	close(g.stopping)
	ctx, cancel := context.WithTimeout(context.Background(), g.options.ShutdownTimeout)
	defer cancel()
	if err := server.Shutdown(ctx); err != nil {
		_ = server.Close()
		return fmt.Errorf("gateway: connections were cut at shutdown: %w", err)
	}
	return nil
}

func watchCertificate(dir string) (*certwatcher.CertWatcher, error) {
	certs, err := certwatcher.New(filepath.Join(dir, CertName), filepath.Join(dir, KeyName))
	if err != nil {
		return nil, fmt.Errorf("gateway: server certificate: %w", err)
	}
	return certs, nil
}
