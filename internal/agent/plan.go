// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/nixfleet/nixfleet/internal/activation"
	"github.com/nixfleet/nixfleet/internal/attempt"
	"github.com/nixfleet/nixfleet/internal/health"
	"github.com/nixfleet/nixfleet/internal/nix"
)

const (
	// budgetSlack is what the health checks may take beyond the longest of them.
	budgetSlack = 10 * time.Second

	// keptAttempts is how many attempts are kept on disk, for people.
	keptAttempts = 20
)

// makePlan writes down what the open attempt is about to do. Nothing has been changed
// when it cannot be written. Units are those that were not well before; nil: nobody looked.
func (m *Machine) makePlan(ctx context.Context, units *health.Baseline) error {
	o := m.journal.Open
	p := m.Base
	p.Number, p.Nonce, p.Revision, p.BootID = o.Number, o.Nonce, o.Revision, o.BootID
	p.Previous = attempt.System{Path: o.Previous, Specialisation: o.PreviousSpecialisation}
	p.Target = m.targetSystem()
	p.PreviousProfile = o.PreviousProfile
	p.ActivationTimeoutSeconds = wholeSeconds(o.Timeout)
	p.ConfirmTimeoutSeconds = wholeSeconds(m.confirmTimeout())
	p.Baseline.Reachable = o.Reachable
	if m.host != nil {
		p.Baseline.HealthChecks = m.host.Spec.HealthChecks
	}
	p.Baseline.Healthy = m.passing(ctx, o.Previous)
	if units != nil {
		p.Baseline.UnitsChecked, p.Baseline.FailedUnits = true, units.Troubled
	}
	p.HealthBudgetSeconds = wholeSeconds(m.healthBudget(p))
	if p.Protection == attempt.ProtectionTimers {
		now, err := attempt.Monotonic()
		if err != nil {
			return err
		}
		p.ActivateBy = int64(now + activation.StageOneAfter(p))
	}
	m.keepTools(ctx, p)
	_, err := attempt.Create(p)
	if err == nil {
		m.plan = &p
	}
	return err
}

func wholeSeconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }

// targetSystem is what the open attempt activates: the specialisation that runs now if
// the new system has one of that name.
func (m *Machine) targetSystem() attempt.System {
	o := m.journal.Open
	s := attempt.System{Path: nix.StorePath(o.StorePath)}
	if o.PreviousSpecialisation != "" && m.Source.Has(s.Path, o.PreviousSpecialisation) {
		s.Specialisation = o.PreviousSpecialisation
	}
	return s
}

// keepTools keeps what a roll-back runs from garbage collection until the attempt is over.
func (m *Machine) keepTools(ctx context.Context, p attempt.Plan) {
	if p.Root != "/" {
		return // they lie in the machine's store, which is not the host's
	}
	for _, file := range []string{p.Agent, p.Tools.NixEnv, p.Tools.Systemctl} {
		path := storePathOf(file)
		if path == "" {
			continue
		}
		if err := m.Source.Keep(ctx, path); err != nil {
			m.Log.Warn("A program that a roll-back needs could not be kept from garbage collection", "program", file, "error", err)
		}
	}
}

// openPlan reads the plan of the open attempt. One that an agent without plans has begun
// gets its plan now, from the journal.
func (m *Machine) openPlan() (attempt.Plan, attempt.Dir, error) {
	o := m.journal.Open
	if o.Number == 0 {
		if err := m.number(); err != nil {
			return attempt.Plan{}, attempt.Dir{}, err
		}
		if err := errors.Join(m.save(), m.makePlan(context.Background(), nil)); err != nil {
			return attempt.Plan{}, attempt.Dir{}, err
		}
	}
	d := attempt.At(m.Base.StateDir, o.Number)
	if m.plan != nil && m.plan.Number == o.Number {
		return *m.plan, d, nil
	}
	p, err := d.Plan()
	if err == nil && p.Nonce != o.Nonce {
		err = fmt.Errorf("the plan of attempt %d is that of another attempt", o.Number)
	}
	if err != nil {
		return attempt.Plan{}, d, err
	}
	m.plan = &p
	return p, d, nil
}

// number gives the open attempt a number that none has had.
func (m *Machine) number() error {
	n, err := attempt.Next(m.Base.StateDir, m.journal.Attempts)
	if err != nil {
		return err
	}
	m.plan = nil
	m.journal.Attempts, m.journal.Open.Number, m.journal.Open.Nonce = n, n, attempt.NewNonce()
	return nil
}

// planned reports whether the open attempt has a plan that is not over: without one
// nothing was changed.
func (m *Machine) planned() (bool, error) {
	d := attempt.At(m.Base.StateDir, m.journal.Open.Number)
	_, err := d.Plan()
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	closed, err := d.Closed()
	return err == nil && !closed, err
}

// closeAttempt ends the attempt's protection. What cannot be done of it is harmless: a
// timer that fires finds the attempt decided.
func (m *Machine) closeAttempt(ctx context.Context, number int64) {
	if number == 0 {
		return
	}
	d := attempt.At(m.Base.StateDir, number)
	p, err := d.Plan()
	if err != nil {
		return // there was none
	}
	if err := errors.Join(m.Activator.Settle(ctx, p), d.Close()); err != nil {
		m.Log.Warn("End the dead man's switch", "attempt", number, "error", err)
	}
	m.plan = nil
	if err := attempt.Prune(m.Base.StateDir, keptAttempts); err != nil {
		m.Log.Warn("Remove old attempts", "error", err)
	}
}

// sweep closes the attempts that the journal says are over, where an agent was killed
// before it could: a timer of theirs that fires must find nothing to do.
func (m *Machine) sweep(ctx context.Context) {
	numbers, err := attempt.Numbers(m.Base.StateDir)
	if err != nil {
		m.Log.Warn("Look for attempts that are over", "error", err)
		return
	}
	for _, n := range numbers {
		if o := m.journal.Open; o != nil && o.Number == n {
			continue
		}
		if closed, err := attempt.At(m.Base.StateDir, n).Closed(); err == nil && !closed {
			m.closeAttempt(ctx, n)
		}
	}
}

// confirmTimeout is how long the report of the new system may take.
func (m *Machine) confirmTimeout() time.Duration {
	if m.host == nil {
		return defaultConfirmTimeout
	}
	return seconds(m.host.Spec.Activation.ConfirmTimeoutSeconds, defaultConfirmTimeout)
}
