// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package etcd

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// dial talks to the store as the API server does.
func dial(t *testing.T, s *Server) *clientv3.Client {
	t.Helper()
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{s.Endpoint()}})
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func TestDataOutlivesTheServer(t *testing.T) {
	// A blank in the path must not end up escaped in the socket's name.
	dir := filepath.Join(t.TempDir(), "a b")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()

	for round := range 2 {
		server, err := Start(ctx, dir, logr.Discard())
		if err != nil {
			t.Fatal(err)
		}
		run, stop := context.WithCancel(ctx)
		done := make(chan error, 1)
		go func() { done <- server.Run(run) }()

		client := dial(t, server)
		if round == 0 {
			if _, err := client.Put(ctx, "key", "value"); err != nil {
				t.Fatal(err)
			}
		}
		got, err := client.Get(ctx, "key")
		if err != nil {
			t.Fatal(err)
		}
		if len(got.Kvs) != 1 || string(got.Kvs[0].Value) != "value" {
			t.Errorf("round %d: got %v", round, got.Kvs)
		}
		if err := client.Close(); err != nil {
			t.Fatal(err)
		}

		stop()
		if err := <-done; err != nil {
			t.Errorf("round %d: stopped with %v", round, err)
		}
	}
}

func TestSocketPathThatIsTooLong(t *testing.T) {
	_, err := Start(t.Context(), "/"+strings.Repeat("x", maxSocketPath), logr.Discard())
	if err == nil || !strings.Contains(err.Error(), "--data-dir") {
		t.Fatalf("got %v, want an error that names --data-dir", err)
	}
}
