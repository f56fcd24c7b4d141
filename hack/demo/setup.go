// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"time"
)

// offlineAfter is after how long without a heartbeat a host counts as offline. It is
// short, because the demo waits for it.
const (
	offlineAfter     = 10 * time.Second
	heartbeatSeconds = 2
)

// ports are those on loopback that the fleet uses.
type ports struct {
	api, gateway, cache int
}

func (d *demo) cacheURL() string { return fmt.Sprintf("http://127.0.0.1:%d", d.ports.cache) }

func (d *demo) gatewayAddress() string { return fmt.Sprintf("127.0.0.1:%d", d.ports.gateway) }

// setUp builds everything and starts the control plane and the cache.
func (d *demo) setUp(activationSeconds int) error {
	begin := time.Now()
	d.say("Everything of this fleet is in %s", d.dir)
	if err := d.layOut(); err != nil {
		return err
	}
	d.say("\n=== Build machine: build the systems of %d hosts, sign them, fill the binary cache", len(d.hosts))
	if err := d.buildSystems(activationSeconds); err != nil {
		return err
	}
	for _, h := range d.hosts {
		if err := d.install(h); err != nil {
			return fmt.Errorf("install host %s: %w", h.name, err)
		}
	}
	d.say("    %d systems; public key %s", d.systems.count(), d.key.public)
	keys := make(map[string]string, len(d.hosts))
	for _, h := range d.hosts {
		keys[h.name] = h.pin
	}
	err := d.samples.render(d.path("manifests"), values{
		platform: platform(), hostKeys: keys, cacheURL: d.cacheURL(), publicKey: d.key.public, storePaths: d.systems.storePaths(),
	})
	if err != nil {
		return err
	}
	d.say("    config/samples with the keys, store paths and cache of this fleet: %s", d.path("manifests"))
	d.say("    (%s)", time.Since(begin).Round(100*time.Millisecond))
	return d.startServers()
}

// layOut chooses ports and names the hosts of the samples.
func (d *demo) layOut() error {
	names := d.samples.hostNames()
	free, err := freePorts(d.ctx, 3+len(names))
	if err != nil {
		return err
	}
	d.ports = ports{api: free[0], gateway: free[1], cache: free[2]}
	for i, name := range names {
		d.hosts = append(d.hosts, &host{name: name, root: d.path("hosts", name), port: free[3+i]})
	}
	return nil
}

// freePorts returns ports on loopback that nobody listens on.
func freePorts(ctx context.Context, n int) ([]int, error) {
	var all []int
	for range n {
		listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		// Open until all are chosen, so that they differ.
		defer listener.Close() //nolint:errcheck // Nothing was written.
		address, ok := listener.Addr().(*net.TCPAddr)
		if !ok {
			return nil, fmt.Errorf("listened on %s", listener.Addr())
		}
		all = append(all, address.Port)
	}
	return all, nil
}

func (s systems) count() int {
	distinct := map[string]bool{}
	for _, hosts := range s {
		for _, path := range hosts {
			distinct[path.String()] = true
		}
	}
	return len(distinct)
}

func (d *demo) startServers() error {
	begin := time.Now()
	d.say("\n=== Start the binary cache and the control plane")
	if err := d.startCache(); err != nil {
		return err
	}
	var err error
	if d.ready, err = listenReadiness(d.path("notify")); err != nil {
		return err
	}
	d.controlPlane, err = d.newProcess("control-plane", d.program(controlPlaneProgram),
		"--data-dir", d.controlPlaneDir(),
		"--secure-port", fmt.Sprint(d.ports.api),
		"--gateway-address", d.gatewayAddress(),
		"--host-offline-after", offlineAfter.String())
	if err != nil {
		return err
	}
	if err := d.startControlPlane(); err != nil {
		return err
	}
	d.say("    ready; KUBECONFIG=%s", d.kubeconfig())
	d.say("    (%s)", time.Since(begin).Round(100*time.Millisecond))
	return d.connect()
}

// startCache starts a copy of this program: "go run" removes its own when it has ended.
func (d *demo) startCache() error {
	program := d.path("bin", "demo")
	if err := copyProgram(program); err != nil {
		return err
	}
	config := serveConfig{CacheDir: d.cacheDir(), CacheAddress: fmt.Sprintf("127.0.0.1:%d", d.ports.cache)}
	for _, h := range d.hosts {
		config.Services = append(config.Services, hostService{Host: h.name, Root: h.root, Address: h.serviceAddress()})
	}
	data, err := json.MarshalIndent(config, "", "  ")
	if err != nil {
		return err
	}
	file := d.path("run", "serve.json")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		return err
	}
	p, err := d.newProcess("cache", program, serveCommand, file)
	if err != nil {
		return err
	}
	return d.start(p)
}

func copyProgram(to string) (err error) {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	from, err := os.Open(self)
	if err != nil {
		return err
	}
	defer from.Close() //nolint:errcheck // Nothing was written.
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o700)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, from)
	if closeErr := out.Close(); err == nil {
		err = closeErr
	}
	return err
}
