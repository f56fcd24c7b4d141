// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

// slowActivation is how long an activation takes where something is to be killed in the
// middle of one, in seconds.
const slowActivation = 3

func (d *demo) chaosSteps() []step {
	return []step{
		{"Hosts: name them, pin their keys, start their agents", d.stepHosts},
		{"Release a to all hosts", d.stepAll},
		{"Release b, one host first, then the rest, while everything is killed", d.stepKill},
		{"Release b is on all hosts, as if nothing had happened", d.stepAfterKill},
	}
}

// stepKill kills each agent in the middle of its activation, and the control plane while
// the canary's host activates and again while the rest do, and starts them again.
func (d *demo) stepKill() error {
	if err := d.apply("release-b.yaml", "rollout-b.yaml"); err != nil {
		return err
	}
	errs := make(chan error, len(d.hosts))
	for _, h := range d.hosts {
		go func() { errs <- d.killInActivation(h, d.systems["b"][h.name].String()) }()
	}
	for n := range d.hosts {
		if err := <-errs; err != nil {
			return err
		}
		// After the canary's, and after the first of the others.
		if n < 2 {
			if err := d.killControlPlane(); err != nil {
				return err
			}
		}
	}
	return d.awaitRollout("to-b", nfv1.RolloutPhaseSucceeded)
}

// killInActivation waits until a host has begun to activate a system, kills its agent and
// starts it again.
func (d *demo) killInActivation(h *host, system string) error {
	if err := d.awaitActivation(h, system); err != nil {
		return err
	}
	if err := h.agent.kill(); err != nil {
		return err
	}
	d.say("  killed the agent of %s while it activated release b, and started it again", h.name)
	return d.start(h.agent)
}

// awaitActivation watches the log that switch-to-configuration writes when it begins.
func (d *demo) awaitActivation(h *host, system string) error {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return err
	}
	defer watcher.Close() //nolint:errcheck // Nothing was written.
	if err := watcher.Add(filepath.Dir(h.switchLog())); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(d.ctx, 2*awaitTimeout)
	defer cancel()
	for {
		activations, err := h.activations()
		if err != nil {
			return err
		}
		if len(activations) > 0 && strings.HasSuffix(activations[len(activations)-1], "="+system) {
			return nil
		}
		select {
		case <-watcher.Events:
		case err := <-watcher.Errors:
			return err
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("expected %s to activate %s; saw: %s", h.name, system, strings.Join(activations, ", ")), context.Cause(ctx))
		}
	}
}

func (d *demo) killControlPlane() error {
	begin := time.Now()
	if err := d.controlPlane.kill(); err != nil {
		return err
	}
	if err := d.startControlPlane(); err != nil {
		return err
	}
	d.say("  killed the control plane in the middle of the rollout; ready again after %s", time.Since(begin).Round(100*time.Millisecond))
	return nil
}

func (d *demo) stepAfterKill() error {
	if err := d.nixfleet(0, "rollout", "status", "to-b"); err != nil {
		return err
	}
	if err := d.expectRuns("b", d.names()...); err != nil {
		return err
	}
	if err := d.expectUpToDate("b", d.names()...); err != nil {
		return err
	}
	if err := d.expectCounts("to-b", nfv1.HostCounts{Total: 6, Assigned: 6, Succeeded: 6}); err != nil {
		return err
	}
	return d.expectCanaryFirst("to-b")
}
