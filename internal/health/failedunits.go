// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package health

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/nixfleet/nixfleet/internal/nix"
)

const (
	// failedUnitsName is the name of the result.
	failedUnitsName = "failed-units"

	// settleTime is how long units may take to come to rest after an activation.
	settleTime = 30 * time.Second

	// settleLook is how often it is looked whether they have.
	settleLook = 2 * time.Second

	// sampleApart is the time between two samples: one that is just being restarted shall
	// show in both, or in the count.
	sampleApart = 10 * time.Second

	// failedUnitsTimeout bounds all of it.
	failedUnitsTimeout = settleTime + 4*sampleApart
)

// FailedUnits is about units that fail and were well before. See NewlyFailed and UnitWatch.
type FailedUnits struct {
	// System is the path of the system whose units count.
	System string

	// Before is what was not well before.
	Before Baseline

	watch *UnitWatch // nil: right after an activation
}

// NewlyFailed is a check that passes if no unit of the system has failed that was well in
// the baseline. The system is a path in the store, or that of a specialisation below it. It
// takes at least ten seconds. Only UntilHealthy runs it: it is about an activation that has
// just ended, and must not run while one does.
func NewlyFailed(system string, before Baseline) Check {
	return Check{
		Name: failedUnitsName, Type: failedUnitsName, Timeout: failedUnitsTimeout,
		FailedUnits: &FailedUnits{System: system, Before: before},
	}
}

// UnitWatch looks for units that fail on a host at rest. It remembers how they were the
// last time. The zero value has not looked yet.
type UnitWatch struct {
	system  string
	last    []Unit
	doubted map[string]bool
}

// Check passes if no unit of the system has failed that was well in the baseline, and none
// was restarted again and again since the last looks. A try takes no time.
func (w *UnitWatch) Check(system string, before Baseline) Check {
	if w.system != system {
		*w = UnitWatch{system: system}
	}
	return Check{
		Name: failedUnitsName, Type: failedUnitsName, Timeout: maxTry,
		FailedUnits: &FailedUnits{System: system, Before: before, watch: w},
	}
}

// look compares the units with those of the last look.
func (p *Prober) look(ctx context.Context, f FailedUnits) ([]Unit, error) {
	if p.Units == nil {
		return nil, errNoSystemd
	}
	now, err := p.sample(ctx, f)
	if err != nil {
		return nil, err
	}
	w := f.watch
	bad, doubtful := compare(w.last, now.Units, w.doubted)
	w.last, w.doubted = now.Units, names(append(doubtful, bad...))
	for _, u := range doubtful {
		if u.failed() { // at rest it will not come back by itself
			bad = append(bad, u)
		}
	}
	return bad, nil
}

var errNoSystemd = errors.New("systemd does not run this host")

// ValidUnitPattern reports whether a pattern for units that may fail can be read.
func ValidUnitPattern(pattern string) bool {
	_, err := path.Match(pattern, "")
	return err == nil && pattern != "" && len(pattern) <= 255
}

// failedUnits runs the check. After an activation it lets the units settle and looks at
// them until two samples in a row are good, or a unit is in trouble twice.
func (p *Prober) failedUnits(ctx context.Context, c Check) Result {
	find := p.findFailed
	if c.FailedUnits.watch != nil {
		find = p.look
	}
	bad, err := find(ctx, *c.FailedUnits)
	switch {
	case err != nil:
		return Result{Name: c.Name, Message: shorten(err.Error())}
	case len(bad) > 0:
		return Result{Name: c.Name, Message: shorten(describe(bad)), Units: slices.Sorted(maps.Keys(names(bad)))}
	default:
		return Result{Name: c.Name, Healthy: true}
	}
}

func describe(bad []Unit) string {
	names := make([]string, 0, len(bad))
	for _, u := range bad {
		names = append(names, u.String())
	}
	return strings.Join(names, ", ")
}

func (p *Prober) findFailed(ctx context.Context, f FailedUnits) ([]Unit, error) {
	if p.Units == nil {
		return nil, errNoSystemd
	}
	end := p.clock().Now().Add(failedUnitsTimeout)
	first, err := p.settle(ctx, f)
	if err != nil {
		return nil, err
	}
	var doubted map[string]bool
	for {
		if err := p.pause(ctx, sampleApart); err != nil {
			return nil, err
		}
		second, err := p.sample(ctx, f)
		if err != nil {
			return nil, err
		}
		bad, doubtful := compare(first.Units, second.Units, doubted)
		last := p.clock().Now().Add(sampleApart).After(end)
		switch {
		case len(bad) > 0:
			return bad, nil
		case len(doubtful) == 0 || last:
			return doubtful, nil
		}
		first, doubted = second, names(doubtful)
	}
}

// compare judges two samples. Bad is what has failed at both, or was restarted in
// between and waits to be restarted at one of them. Doubtful is what shows another sign
// of trouble; twice in a row is bad.
func compare(first, second []Unit, doubted map[string]bool) (bad, doubtful []Unit) {
	before := make(map[string]Unit, len(first))
	for _, u := range first {
		before[u.Name] = u
	}
	for _, u := range second {
		b, known := before[u.Name]
		again := known && u.Restarts > b.Restarts
		switch {
		case u.failed() && b.troubled(), again && (u.restarting() || b.restarting()):
			bad = append(bad, u)
		case !u.troubled() && !again:
		case doubted[u.Name]:
			bad = append(bad, u)
		default:
			doubtful = append(doubtful, u)
		}
	}
	return bad, doubtful
}

func names(units []Unit) map[string]bool {
	set := make(map[string]bool, len(units))
	for _, u := range units {
		set[u.Name] = true
	}
	return set
}

// settle waits until nothing is being started or restarted, and returns the sample that
// shows it, or the last one.
func (p *Prober) settle(ctx context.Context, f FailedUnits) (UnitSnapshot, error) {
	end := p.clock().Now().Add(settleTime)
	for {
		now, err := p.sample(ctx, f)
		if err != nil {
			return UnitSnapshot{}, err
		}
		calm := now.Jobs == 0
		for _, u := range now.Units {
			calm = calm && !u.restarting()
		}
		if calm || !p.clock().Now().Before(end) {
			return now, nil
		}
		if err := p.pause(ctx, settleLook); err != nil {
			return UnitSnapshot{}, err
		}
	}
}

func (p *Prober) pause(ctx context.Context, d time.Duration) error {
	timer := p.clock().NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C():
		return nil
	}
}

// sampleTries is how often systemd is asked again: it is away while it re-executes itself,
// which an activation may have it do at its end.
const sampleTries = 5

// sample is how the units are that count.
func (p *Prober) sample(ctx context.Context, f FailedUnits) (UnitSnapshot, error) {
	now, err := p.Units.Snapshot(ctx)
	for try := 1; err != nil && try < sampleTries; try++ {
		if perr := p.pause(ctx, settleLook); perr != nil {
			return UnitSnapshot{}, perr
		}
		now, err = p.Units.Snapshot(ctx)
	}
	if err != nil {
		return UnitSnapshot{}, fmt.Errorf("look which units have failed: %w", err)
	}
	counted := now.Units[:0:0]
	for _, u := range now.Units {
		counts, err := p.counts(u, f)
		if err != nil {
			return UnitSnapshot{}, err
		}
		if counts {
			counted = append(counted, u)
		}
	}
	now.Units = counted
	return now, nil
}

// personal are units that belong to whoever is logged in.
var personal = []string{"user@", "user-runtime-dir@", "session-"}

// counts reports whether the system answers for a unit.
func (p *Prober) counts(u Unit, f FailedUnits) (bool, error) {
	if u.Transient || slices.Contains(f.Before.Troubled, u.Name) {
		return false, nil
	}
	for _, prefix := range personal {
		if strings.HasPrefix(u.Name, prefix) {
			return false, nil
		}
	}
	for _, pattern := range p.IgnoreFailed {
		if ok, err := path.Match(pattern, u.Name); err != nil || ok {
			return false, err
		}
	}
	return p.inSystem(f.System, u.Name)
}

// inSystem reports whether the system has a file for the unit, or for its template. A
// unit that is masked is a link out of the store, and has none.
func (p *Prober) inSystem(system, name string) (bool, error) {
	files := []string{name}
	if at, dot := strings.IndexByte(name, '@'), strings.LastIndexByte(name, '.'); at > 0 && dot > at {
		files = append(files, name[:at+1]+name[dot:])
	}
	for _, file := range files {
		_, err := nix.ResolveInStore(p.Root, system+"/etc/systemd/system/"+file)
		switch {
		case err == nil:
			return true, nil
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, nix.ErrOutsideStore):
		default:
			return false, fmt.Errorf("look for %s in the system: %w", file, err)
		}
	}
	return false, nil
}
