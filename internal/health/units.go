// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package health

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/nixfleet/nixfleet/internal/process"
)

// UnitManager is the service manager of a host, systemd. See NewUnitManager.
type UnitManager interface {
	// Named are the units of these names, in their order, loaded or not.
	Named(ctx context.Context, names []string) ([]Unit, error)

	// Snapshot is how all units are that are loaded.
	Snapshot(ctx context.Context) (UnitSnapshot, error)

	// Run runs a command in a unit of its own and waits until all its processes are gone.
	// Its output goes to w while it runs.
	Run(ctx context.Context, c TransientCommand, w io.Writer) (process.Outcome, error)
}

// Unit is a unit of systemd, in systemd's own words.
type Unit struct {
	// Name is its name with the suffix.
	Name string

	// Load, Active and Sub are its states, such as loaded, failed, auto-restart.
	Load, Active, Sub string

	// Result is why it failed, such as exit-code; success if it did not.
	Result string

	// Restarts counts how often systemd restarted it by itself; services alone have it.
	Restarts uint32

	// Transient tells that a program made it and no file.
	Transient bool
}

// UnitSnapshot is how the units of a host are at one moment.
type UnitSnapshot struct {
	// Units are the services that are not inactive, and everything that has failed.
	Units []Unit

	// Jobs is how many units are being started or stopped.
	Jobs int
}

// failed and restarting are the two ways in which a unit is in trouble.
func (u Unit) failed() bool     { return u.Active == "failed" }
func (u Unit) restarting() bool { return strings.HasPrefix(u.Sub, "auto-restart") }
func (u Unit) troubled() bool   { return u.failed() || u.restarting() }

func (u Unit) String() string {
	switch {
	case u.Load == "not-found":
		return u.Name + " does not exist"
	case u.failed() && u.Result != "" && u.Result != "success":
		return fmt.Sprintf("%s failed (%s)", u.Name, u.Result)
	case u.restarting(), u.Active == "active" && u.Restarts > 0:
		return fmt.Sprintf("%s is %s (%s) and was restarted %d times", u.Name, u.Active, u.Sub, u.Restarts)
	default:
		return fmt.Sprintf("%s is %s (%s)", u.Name, u.Active, u.Sub)
	}
}

// Baseline is what was not well on a host before something was changed.
type Baseline struct {
	// Troubled are the units that had failed or were waiting to be restarted, sorted.
	Troubled []string `json:"troubled,omitempty"`
}

// Baseline takes it. Nil without an error means that no systemd runs the host.
func (p *Prober) Baseline(ctx context.Context) (*Baseline, error) {
	if p.Units == nil {
		return nil, nil
	}
	now, err := p.Units.Snapshot(ctx)
	if err != nil {
		return nil, fmt.Errorf("look which units have failed: %w", err)
	}
	b := &Baseline{}
	for _, u := range now.Units {
		if u.troubled() {
			b.Troubled = append(b.Troubled, u.Name)
		}
	}
	slices.Sort(b.Troubled)
	return b, nil
}

func (p *Prober) probeSystemd(ctx context.Context, c Systemd) error {
	if p.Units == nil {
		return fmt.Errorf("systemd does not run this host")
	}
	units, err := p.Units.Named(ctx, c.Units)
	if err != nil {
		return fmt.Errorf("ask systemd: %w", err)
	}
	seen := map[string]bool{}
	var bad []string
	for _, u := range units {
		seen[u.Name] = true
		if u.Active != "active" && u.Active != "reloading" && u.Active != "refreshing" {
			bad = append(bad, u.String())
		}
	}
	for _, name := range c.Units {
		if !seen[name] {
			bad = append(bad, "systemd says nothing of "+name)
		}
	}
	if len(bad) > 0 {
		return fmt.Errorf("%s", strings.Join(bad, ", "))
	}
	return nil
}
