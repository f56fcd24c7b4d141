// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package etcd

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"sync/atomic"

	"github.com/go-logr/logr"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
)

// maxSocketPath is what fits into sun_path on Linux, without the final NUL.
const maxSocketPath = 107

// quotaBytes is etcd's own advice for the largest database. The default of 2
// GiB ends in a read-only store, which needs an operator to repair.
const quotaBytes = 8 << 30

// Server is a running etcd.
type Server struct {
	etcd     *embed.Etcd
	endpoint string
	stopping *atomic.Bool
}

// Start starts etcd with its data and sockets in dir, an absolute path that
// exists and that only this user may enter, and returns when it serves. The
// context bounds the start alone. Run has to be called then, and its context to
// end, after everything that uses the store has ended.
func Start(ctx context.Context, dir string, log logr.Logger) (*Server, error) {
	socket := filepath.Join(dir, "client.sock")
	if len(socket) > maxSocketPath {
		return nil, fmt.Errorf("etcd's socket %s has a path of %d bytes, a Unix socket may have %d: give a shorter --data-dir", socket, len(socket), maxSocketPath)
	}
	stopping := &atomic.Bool{}
	etcd, err := embed.StartEtcd(config(dir, socket, newZapLogger(log.WithName("etcd"), stopping)))
	if err != nil {
		return nil, fmt.Errorf("start etcd in %s: %w", dir, err)
	}
	s := &Server{etcd: etcd, endpoint: "unix://" + socket, stopping: stopping}
	select {
	case <-etcd.Server.ReadyNotify():
		return s, nil
	case err := <-etcd.Err():
		etcd.Close()
		return nil, fmt.Errorf("start etcd in %s: %w", dir, err)
	case <-ctx.Done():
		etcd.Close()
		return nil, fmt.Errorf("start etcd in %s: %w", dir, context.Cause(ctx))
	}
}

// Endpoint is the address for the API server's etcd client.
func (s *Server) Endpoint() string { return s.endpoint }

// Run returns when etcd has failed, or nil when ctx is done and etcd has
// stopped.
func (s *Server) Run(ctx context.Context) error {
	select {
	case err := <-s.etcd.Err():
		s.etcd.Close()
		return err
	case <-s.etcd.Server.StopNotify():
		s.etcd.Close()
		return errors.New("it stopped by itself; its last log line says why")
	case <-ctx.Done():
		s.stopping.Store(true)
		s.etcd.Close()
		return nil
	}
}

// config is that of a store with one member, for ever.
func config(dir, socket string, log *zap.Logger) *embed.Config {
	cfg := embed.NewConfig()
	cfg.Name = "nixfleet"
	cfg.Dir = dir
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(log)

	cfg.ListenClientUrls = []url.URL{socketURL(socket)}
	cfg.AdvertiseClientUrls = cfg.ListenClientUrls
	// HTTP (metrics, health) on a socket of its own leaves the first one to
	// gRPC alone; shared, every connection would go through a protocol sniffer.
	cfg.ListenClientHttpUrls = []url.URL{socketURL(filepath.Join(dir, "http.sock"))}
	cfg.EnableGRPCGateway = false

	// There is no other member and there will be none, so nothing listens for
	// peers; the advertised address is only a name in the member list.
	cfg.ListenPeerUrls = nil
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)

	cfg.QuotaBackendBytes = quotaBytes
	return cfg
}

func socketURL(path string) url.URL {
	return url.URL{Scheme: "unix", Path: path}
}
