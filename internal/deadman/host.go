// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package deadman

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nixfleet/nixfleet/internal/activation"
	"github.com/nixfleet/nixfleet/internal/attempt"
	"github.com/nixfleet/nixfleet/internal/health"
	"github.com/nixfleet/nixfleet/internal/nix"
	"github.com/nixfleet/nixfleet/internal/process"
)

const (
	// commandTime bounds a command to systemd.
	commandTime = 25 * time.Second

	// lookEvery is how often it is looked whether the control plane answers again.
	lookEvery = time.Second

	// syncTime bounds the writing of what the disks have not got yet: one that is gone
	// must not keep the machine from its reboot.
	syncTime = 20 * time.Second

	commandOutput = 1 << 10
)

// Machine is the machine that this process runs on, or a host in a directory of it, as a
// plan describes it.
type Machine struct {
	plan  attempt.Plan
	os    *activation.NixOS
	units health.UnitManager // nil where systemd does not run the host
}

var _ Host = (*Machine)(nil)

// NewMachine returns the host of a plan.
func NewMachine(p attempt.Plan) *Machine {
	return &Machine{plan: p, units: health.NewUnitManager(p.Root), os: &activation.NixOS{
		Root: p.Root, Runner: &activation.DirectRunner{Root: p.Root}, LogDir: filepath.Join(p.StateDir, "logs"),
	}}
}

// hasUnits reports whether the attempt runs in units of systemd.
func (m *Machine) hasUnits() bool { return m.plan.Protection == attempt.ProtectionTimers }

// StopActivation implements Host.
func (m *Machine) StopActivation(ctx context.Context) error {
	if m.hasUnits() {
		units := []string{activation.ActivateUnit(m.plan), activation.UnitName(activation.KindBoot, m.plan.ID())}
		return m.stopUnits(ctx, units)
	}
	// What an agent that was killed on its way back left behind, too.
	var errs []error
	for _, kind := range []activation.Kind{activation.KindTest, activation.KindBoot, activation.KindTestUnchecked} {
		errs = append(errs, m.os.Abandon(ctx, kind, m.plan.ID()))
	}
	return errors.Join(append(errs, m.os.Abandon(ctx, activation.KindBoot, m.bootID()))...)
}

// bootID names the run that restores the boot default, unlike the one that changed it.
func (m *Machine) bootID() string { return m.plan.ID() + "-rollback" }

// stopUnits has systemd stop the units, and kills what it has left. systemctl speaks to
// systemd itself, so it needs no message bus.
func (m *Machine) stopUnits(ctx context.Context, units []string) error {
	err := m.systemctl(ctx, append([]string{"stop"}, units...)...)
	var exit *ExitError
	if errors.As(err, &exit) && exit.Code == exitNotLoaded {
		err = nil
	}
	var errs []error
	for _, unit := range units {
		if kerr := killCgroups(ctx, unit); kerr != nil {
			errs = append(errs, kerr)
		}
	}
	if len(errs) == 0 {
		// They are gone, whatever systemd says.
		return nil
	}
	return errors.Join(append(errs, err)...)
}

// exitNotLoaded is systemctl's answer for a unit that does not exist (any more).
const exitNotLoaded = 5

// ExitError is a command that ended without success.
type ExitError struct {
	// Command is what was run, Code its exit code and Output the end of what it said.
	Command string
	Code    int
	Output  string
}

// Error says how it ended.
func (e *ExitError) Error() string {
	return fmt.Sprintf("%s: exit code %d: %s", e.Command, e.Code, e.Output)
}

func (m *Machine) systemctl(ctx context.Context, args ...string) error {
	what := "systemctl " + strings.Join(args, " ")
	if m.plan.Tools.Systemctl == "" {
		return fmt.Errorf("%s: the plan has no systemctl", what)
	}
	capture := process.NewCapture(commandOutput, nil, 0)
	out, err := process.Run(ctx, process.Spec{
		Path: m.plan.Tools.Systemctl, Args: append([]string{"--no-ask-password"}, args...),
		// Run by root it talks to systemd itself, not over the bus, which may be gone.
		Env: []string{"SYSTEMD_PAGER=", "LC_ALL=C"}, Output: capture, Timeout: commandTime,
	})
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", what, err)
	case out.TimedOut:
		return fmt.Errorf("%s: no answer within %s", what, commandTime)
	case out.ExitCode != 0:
		return &ExitError{Command: what, Code: out.ExitCode, Output: capture.LastLine()}
	default:
		return nil
	}
}

// RestoreProfile implements Host.
func (m *Machine) RestoreProfile(ctx context.Context, state nix.ProfileState) error {
	opts := []nix.Option{nix.WithStateDir(m.plan.StateDir)}
	if m.plan.Tools.NixEnv != "" {
		opts = append(opts, nix.WithBinDir(filepath.Dir(m.plan.Tools.NixEnv)))
	}
	if m.plan.Tools.NixConfDir != "" {
		opts = append(opts, nix.WithConfDir(m.plan.Tools.NixConfDir))
	}
	return nix.NewProfile(m.plan.Root, opts...).Restore(ctx, state)
}

// Boot implements Host.
func (m *Machine) Boot(ctx context.Context, path nix.StorePath, timeout time.Duration) (activation.Result, error) {
	return m.os.Boot(ctx, path, timeout, m.bootID())
}

// Test implements Host.
func (m *Machine) Test(ctx context.Context, s attempt.System, timeout time.Duration) (activation.Result, error) {
	return m.os.TestUnchecked(ctx, s, timeout, m.plan.ID())
}

// Running implements Host.
func (m *Machine) Running() (attempt.System, error) {
	path, specialisation, err := m.os.Running()
	return attempt.System{Path: path, Specialisation: specialisation}, err
}

// StartAgent implements Host.
func (m *Machine) StartAgent(ctx context.Context) error {
	if !m.hasUnits() || m.plan.AgentUnit == "" {
		return nil
	}
	// A unit that failed too often would not be started again.
	_ = m.systemctl(ctx, "reset-failed", m.plan.AgentUnit) // it had not: the aim
	return m.systemctl(ctx, "start", "--no-block", m.plan.AgentUnit)
}

// Recovered implements Host. A host in a directory is left to its agent, which goes on
// living.
func (m *Machine) Recovered(ctx context.Context) error {
	if !m.hasUnits() {
		return nil
	}
	return errors.Join(m.healthy(ctx), m.reachable(ctx))
}

// healthy waits for the checks that passed before, and for units that were well before. A
// unit that the new system has broken is not always started again by the old one, which
// has not changed it: that is done here, once, since a reboot would be the next step.
func (m *Machine) healthy(ctx context.Context) error {
	checks, err := m.checks()
	if err != nil {
		return err
	}
	b := m.plan.Baseline
	prober := &health.Prober{Root: m.plan.Root, Units: m.units, Launchctl: health.NewLaunchctl(m.plan.Root), IgnoreFailed: b.IgnoreFailedUnits}
	if b.UnitsChecked && m.units != nil {
		checks = append(checks, health.NewlyFailed(m.plan.Previous.String(), health.Baseline{Troubled: b.FailedUnits}))
	}
	broken, err := unhealthy(prober.UntilHealthy(ctx, checks))
	if len(broken) > 0 && ctx.Err() == nil {
		if serr := m.startUnits(ctx, broken); serr != nil {
			return errors.Join(err, serr)
		}
		_, err = unhealthy(prober.UntilHealthy(ctx, checks))
	}
	return err
}

// unhealthy are the units that failed, and everything that is wrong.
func unhealthy(results []health.Result) ([]string, error) {
	var units []string
	var errs []error
	for _, r := range results {
		units = append(units, r.Units...)
		if !r.Healthy {
			errs = append(errs, fmt.Errorf("health check %s: %s", r.Name, r.Message))
		}
	}
	return units, errors.Join(errs...)
}

// startUnits starts units that have failed. How they get on is for whoever looks next.
func (m *Machine) startUnits(ctx context.Context, units []string) error {
	_ = m.systemctl(ctx, append([]string{"reset-failed", "--"}, units...)...) // one was gone: the aim
	return m.systemctl(ctx, append([]string{"start", "--no-block", "--"}, units...)...)
}

// checks are those that passed before.
func (m *Machine) checks() ([]health.Check, error) {
	data, err := nix.OpenClosure(m.plan.Root, m.plan.Previous.Path).HealthChecks()
	if err != nil {
		return nil, err
	}
	var checks []health.Check
	if data != nil {
		if checks, err = health.ParseFile(data); err != nil {
			return nil, err
		}
	}
	checks = append(checks, health.FromSpec(m.plan.Baseline.HealthChecks)...)
	return slices.DeleteFunc(checks, func(c health.Check) bool { return !slices.Contains(m.plan.Baseline.Healthy, c.Name) }), nil
}

// reachable waits until the control plane's gateway shows its certificate. Without the
// host's key that is all that can be asked.
func (m *Machine) reachable(ctx context.Context) error {
	b := m.plan.Baseline
	if !b.Reachable || b.Server == "" {
		return nil
	}
	dialer, address, err := gateway(b)
	if err != nil {
		return err
	}
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		conn, err := dialer.DialContext(ctx, "tcp", address)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the control plane cannot be reached: %w", err)
		case <-tick.C:
		}
	}
}

func gateway(b attempt.Baseline) (*tls.Dialer, string, error) {
	u, err := url.Parse(b.Server)
	if err != nil {
		return nil, "", fmt.Errorf("the gateway's address: %w", err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(b.CA))
	port := u.Port()
	if port == "" {
		port = "443"
	}
	return &tls.Dialer{
		NetDialer: &net.Dialer{Timeout: 10 * time.Second},
		Config:    &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots, ServerName: u.Hostname()},
	}, net.JoinHostPort(u.Hostname(), port), nil
}

// CanReboot implements Host.
func (m *Machine) CanReboot() bool { return m.hasUnits() && m.plan.Root == "/" }

// Reboot implements Host.
func (m *Machine) Reboot(ctx context.Context) error {
	synced := make(chan struct{})
	go func() {
		unix.Sync()
		close(synced)
	}()
	select {
	case <-synced:
	case <-time.After(syncTime):
	}
	if err := m.systemctl(ctx, "reboot", "--force"); err != nil {
		return errors.Join(err, rebootNow())
	}
	return nil
}
