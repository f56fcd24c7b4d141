// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

const serveCommand = "serve"

// serveConfig says what the process "serve" serves.
type serveConfig struct {
	// CacheDir is served as it is on CacheAddress: a binary cache is a directory of files.
	CacheDir     string        `json:"cacheDir"`
	CacheAddress string        `json:"cacheAddress"`
	Services     []hostService `json:"services"`
}

// hostService is the service that a host runs.
type hostService struct {
	Host    string `json:"host"`
	Root    string `json:"root"`
	Address string `json:"address"`
}

// serve runs the binary cache and the services of all hosts until it is told to stop.
func serve(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("usage: %s CONFIG", serveCommand)
	}
	data, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}
	var config serveConfig
	if err := json.Unmarshal(data, &config); err != nil {
		return fmt.Errorf("%s: %w", args[0], err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	handlers := map[string]http.Handler{config.CacheAddress: http.FileServer(http.Dir(config.CacheDir))}
	for _, s := range config.Services {
		handlers[s.Address] = s
	}
	failed := make(chan error, len(handlers))
	for address, handler := range handlers {
		listener, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
		if err != nil {
			return err
		}
		server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
		defer server.Close() //nolint:errcheck // The process ends.
		go func() { failed <- server.Serve(listener) }()
	}
	fmt.Printf("serving %s on http://%s, and the services of %d hosts\n", config.CacheDir, config.CacheAddress, len(config.Services))
	select {
	case <-ctx.Done():
		return nil
	case err := <-failed:
		return err
	}
}

// ServeHTTP answers as the service of the system that the host runs at this moment: with
// the status and the text of its configuration.
func (s hostService) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	var answer struct {
		Status int    `json:"status"`
		Text   string `json:"text"`
	}
	data, err := s.configuration()
	if err == nil {
		err = json.Unmarshal(data, &answer)
	}
	if err != nil {
		http.Error(w, fmt.Sprintf("%s has no service: %v", s.Host, err), http.StatusServiceUnavailable)
		return
	}
	w.WriteHeader(answer.Status)
	if _, err := fmt.Fprintln(w, answer.Text); err != nil && !errors.Is(err, http.ErrHandlerTimeout) {
		fmt.Printf("%s: %v\n", s.Host, err)
	}
}

// configuration follows links as the host sees them: their targets are paths below its
// root.
func (s hostService) configuration() ([]byte, error) {
	system, err := os.Readlink(filepath.Join(s.Root, "run", "current-system"))
	if err != nil {
		return nil, err
	}
	etc, err := os.Readlink(filepath.Join(s.Root, system, "etc"))
	if err != nil {
		return nil, err
	}
	return os.ReadFile(filepath.Join(s.Root, etc, "demo", "service.json"))
}
