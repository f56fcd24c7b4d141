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
	"github.com/nixfleet/nixfleet/internal/attempt"
	"github.com/nixfleet/nixfleet/internal/bootloader"
	"github.com/nixfleet/nixfleet/internal/health"
	"github.com/nixfleet/nixfleet/internal/identity"
	"github.com/nixfleet/nixfleet/internal/nix"
	"github.com/nixfleet/nixfleet/internal/nix/binarycache"
	"github.com/nixfleet/nixfleet/internal/version"
)

// RunOptions say how an agent is run.
type RunOptions struct {
	// Self says what this process was started from.
	Self attempt.Agent

	// Unfit is why this agent must not work with its configuration: it has keys that the
	// agent does not know. An attempt that is open is brought to its end all the same,
	// since a configuration that came with a system must not leave the host between two
	// systems; it is not committed.
	Unfit error

	// Log takes the log.
	Log io.Writer
}

// Run starts the agent of a configuration and works until ctx ends.
func Run(ctx context.Context, c Config, o RunOptions) error {
	log := newLogger(c, o.Log)
	if err := os.MkdirAll(c.StateDir, 0o700); err != nil {
		return fmt.Errorf("make the state directory: %w", err)
	}
	unlock, err := lockState(c.StateDir)
	if err != nil {
		return err
	}
	defer unlock()
	if err := attempt.SaveAgent(c.StateDir, o.Self); err != nil {
		// The helper takes it for one that was started a moment ago.
		log.Warn("Nobody can tell later whether this agent is up to date", "error", err)
	}
	clk := clock.RealClock{}
	m, err := newMachine(ctx, c, clk, o.Self, log)
	if err != nil {
		return err
	}
	journal := NewJournalFile(c.StateDir, clk.Now)
	m.Store = journal
	m.Notify = newNotifier(clk, log)
	m.Notify.ready(ctx)
	if o.Unfit != nil {
		return m.runUnfit(ctx, journal, o.Unfit)
	}
	client, err := newGatewayClient(c)
	if err != nil {
		return err
	}
	if m.DryRun = c.DryRun; m.DryRun {
		if err := m.mayRehearse(journal); err != nil {
			return err
		}
	}
	m.Metrics = newMetrics(client.Reachable)
	if c.MetricsPort != 0 {
		if err := serveMetrics(ctx, m.Metrics, c.MetricsPort, log); err != nil {
			return err
		}
	}
	a := newAgent(m, client, c.heartbeat(), log)
	m.journal, err = journal.Load()
	switch {
	case corrupt(err):
		log.Error("Start with an empty journal", "error", err)
		m.expect(rollbackTimeout + ladderTime)
		_ = m.Notify.attend(m, func() error { m.distrust(ctx, err); return nil }) // it has no error
		m.Reporter.Event(corev1.EventTypeWarning, "JournalCorrupt", shorten(m.problem, 1000))
	case err != nil:
		return err
	}
	if m.host = m.journal.Host; m.host != nil {
		a.reports.about(m.host)
	}
	m.tell()
	log.Info("Agent started", "dryRun", c.DryRun, "host", c.Namespace+"/"+c.HostName, "server", c.Server, "version", version.String())
	a.run(ctx)
	log.Info("Agent stopped")
	return nil
}

func newLogger(c Config, w io.Writer) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.LogLevel)); err != nil {
		level = slog.LevelInfo
	}
	options := &slog.HandlerOptions{Level: level}
	if c.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
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

func newMachine(ctx context.Context, c Config, clk clock.WithTicker, self attempt.Agent, log *slog.Logger) (*Machine, error) {
	trusted, err := nix.ParsePublicKeys(c.TrustedPublicKeys)
	if err != nil {
		return nil, fmt.Errorf("trustedPublicKeys: %w", err)
	}
	inner, err := c.innerKeys()
	if err != nil {
		return nil, fmt.Errorf("substitutionKeys: %w", err)
	}
	opts := c.nixOptions()
	store := nix.NewStore(c.Root, opts...)
	nixVersion, err := store.Version(ctx)
	if err != nil {
		log.Error("Without Nix nothing can be fetched", "error", err)
	}
	base, err := newPlanBase(c)
	if err != nil {
		return nil, fmt.Errorf("what a plan of this host says: %w", err)
	}
	nixos := &activation.NixOS{Root: c.Root, Runner: activation.NewRunner(c.Root), LogDir: filepath.Join(c.StateDir, "logs")}
	hands := newHands(&base, nixos, self, log)
	return &Machine{
		Activator: hands,
		Base:      base,
		Profile:   nix.NewProfile(c.Root, opts...),
		Source: &StoreSource{
			Store: store, Caches: binarycache.NewClient(), Root: c.Root,
			Name: c.HostName, Platform: c.Platform, TrustedKeys: trusted, InnerKeys: inner,
			AgentUnit: agentUnit(base), AllowMissingHostFile: c.AllowMissingHostFile, Retry: DefaultRetry(), Log: log,
		},
		BootEntry: func(system nix.StorePath) bootloader.Finding { return bootloader.Check(c.Root, system) },
		Prober:    newProber(c, clk),
		Clock:     clk, BootID: bootID(), Log: log,
		Info: nfv1.NodeInfo{
			AgentVersion: shorten(version.String(), 128), NixVersion: shorten(nixVersion, 128),
			KernelVersion: kernel(), BootID: bootID(), Tags: c.Tags,
		},
	}, nil
}

func (c *Config) nixOptions() []nix.Option {
	opts := []nix.Option{nix.WithStateDir(c.StateDir)}
	if c.NixConfDir != "" {
		opts = append(opts, nix.WithConfDir(c.NixConfDir))
	}
	return opts
}

func newProber(c Config, clk clock.WithTicker) *health.Prober {
	return &health.Prober{
		Root: c.Root, Clock: clk, IgnoreFailed: c.IgnoreFailedUnits,
		Units: health.NewUnitManager(c.Root), Launchctl: health.NewLaunchctl(c.Root),
	}
}

// defaultAgentUnit is the unit that the NixOS module makes.
const defaultAgentUnit = "nixfleet-agent.service"

// agentUnit is the unit that a system has to have for the host to stay within reach;
// empty where systemd does not run it.
func agentUnit(base attempt.Plan) string {
	switch {
	case base.Protection != attempt.ProtectionTimers:
		return ""
	case base.AgentUnit != "":
		return base.AgentUnit
	default:
		return defaultAgentUnit
	}
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

// Serve works for a machine that somebody else put together, such as one in memory, until
// ctx ends. The machine's Reporter is set here.
func Serve(ctx context.Context, m *Machine, c *Client, heartbeat time.Duration, log *slog.Logger) {
	newAgent(m, c, heartbeat, log).run(ctx)
}
