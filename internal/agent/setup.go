// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package agent

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/clock"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/activation"
	"github.com/nixfleet/nixfleet/internal/health"
	"github.com/nixfleet/nixfleet/internal/identity"
	"github.com/nixfleet/nixfleet/internal/nix"
	"github.com/nixfleet/nixfleet/internal/nix/binarycache"
	"github.com/nixfleet/nixfleet/internal/version"
)

// Run starts the agent of a configuration and works until ctx ends. Logs go to w.
func Run(ctx context.Context, c Config, w io.Writer) error {
	log := newLogger(c, w)
	if err := os.MkdirAll(c.StateDir, 0o700); err != nil {
		return fmt.Errorf("make the state directory: %w", err)
	}
	unlock, err := lockState(c.StateDir)
	if err != nil {
		return err
	}
	defer unlock()
	client, err := newGatewayClient(c)
	if err != nil {
		return err
	}
	clk := clock.RealClock{}
	m, err := newMachine(c, clk, log)
	if err != nil {
		return err
	}
	journal := NewJournalFile(c.StateDir, clk.Now)
	m.Store = journal
	a := newAgent(m, client, clk, c.heartbeat(), log)
	m.journal, err = journal.Load()
	switch {
	case corrupt(err):
		log.Error("Start with an empty journal", "error", err)
		m.Reporter.Event(corev1.EventTypeWarning, "JournalCorrupt", shorten(err.Error(), 1000))
		m.distrust(ctx)
	case err != nil:
		return err
	}
	log.Info("Agent started", "host", c.Namespace+"/"+c.HostName, "server", c.Server, "version", version.String())
	a.run(ctx)
	log.Info("Agent stopped")
	return nil
}

func newLogger(c Config, w io.Writer) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.LogLevel)); err != nil {
		level = slog.LevelInfo
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level}))
}

// lockState keeps two agents from working on one host.
func lockState(dir string) (func(), error) {
	f, err := os.OpenFile(filepath.Join(dir, "agent.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the state directory: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil { //nolint:gosec // a file descriptor is small
		return nil, errors.Join(fmt.Errorf("another agent works with the state directory %s: %w", dir, err), f.Close())
	}
	return func() { _ = f.Close() }, nil
}

func newGatewayClient(c Config) (*Client, error) {
	key, err := identity.LoadOrCreateKey(c.IdentityKeyFile)
	if err != nil {
		return nil, fmt.Errorf("the host's key: %w", err)
	}
	cert, err := identity.ClientCertificate(key)
	if err != nil {
		return nil, fmt.Errorf("the host's certificate: %w", err)
	}
	pem, err := os.ReadFile(c.CAFile)
	if err != nil {
		return nil, fmt.Errorf("caFile: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("caFile %s holds no certificate in PEM", c.CAFile)
	}
	return NewClient(c.Server, c.Namespace, c.HostName, cert, roots), nil
}

func newMachine(c Config, clk clock.WithTicker, log *slog.Logger) (*Machine, error) {
	trusted, err := nix.ParsePublicKeys(c.TrustedPublicKeys)
	if err != nil {
		return nil, fmt.Errorf("trustedPublicKeys: %w", err)
	}
	inner, err := c.innerKeys()
	if err != nil {
		return nil, fmt.Errorf("substitutionKeys: %w", err)
	}
	opts := []nix.Option{nix.WithStateDir(c.StateDir)}
	if c.NixConfDir != "" {
		opts = append(opts, nix.WithConfDir(c.NixConfDir))
	}
	return &Machine{
		Activator: &activation.NixOS{Root: c.Root, Runner: activation.NewRunner(c.Root), LogDir: filepath.Join(c.StateDir, "logs")},
		Profile:   nix.NewProfile(c.Root, opts...),
		Source: &StoreSource{
			Store: nix.NewStore(c.Root, opts...), Caches: binarycache.NewClient(), Root: c.Root,
			Name: c.HostName, Platform: c.Platform, TrustedKeys: trusted, InnerKeys: inner,
			AllowMissingHostFile: c.AllowMissingHostFile, Retry: DefaultRetry(), Log: log,
		},
		Prober: &health.Prober{Root: c.Root, Clock: clk},
		Clock:  clk, BootID: bootID(), Log: log,
		Info: nfv1.NodeInfo{AgentVersion: shorten(version.String(), 128), KernelVersion: kernel(), BootID: bootID(), Tags: c.Tags},
	}, nil
}

func bootID() string {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

func kernel() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

// distrust brings a host whose journal was lost to a defined state. What the profile
// names was committed once; if something else runs, an attempt may have been under way,
// and nobody knows whether it was healthy.
func (m *Machine) distrust(ctx context.Context) {
	running, _, err := m.Activator.Running()
	profile, _, perr := m.Profile.Current(ctx)
	if err != nil || perr != nil || running == "" || running == profile {
		return
	}
	m.Log.Warn("Going back to the system of the profile, since the journal was lost", "running", running, "profile", profile)
	const timeout = 5 * time.Minute
	if result, err := m.Activator.TestUnchecked(ctx, profile, timeout, "lost-journal"); err != nil || result.ExitCode != 0 {
		m.problem = fmt.Sprintf("the journal was lost, %s runs, and going back to %s failed: exit code %d, %v", running, profile, result.ExitCode, err)
		m.Log.Error(m.problem)
	}
}
