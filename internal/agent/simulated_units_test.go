// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package agent

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"k8s.io/utils/clock"

	"github.com/nixfleet/nixfleet/internal/activation"
	"github.com/nixfleet/nixfleet/internal/attempt"
	"github.com/nixfleet/nixfleet/internal/deadman"
	"github.com/nixfleet/nixfleet/internal/nix"
)

// ladderHost are the hands of the way back on a simulated host. What it does is an action
// of the body like any other.
type ladderHost struct {
	b *body
	p attempt.Plan
}

var _ deadman.Host = ladderHost{}

func (h ladderHost) StopActivation(ctx context.Context) error {
	return h.b.Abandon(ctx, activation.KindTest, h.p.ID())
}

func (h ladderHost) RestoreProfile(ctx context.Context, s nix.ProfileState) error {
	return h.b.Restore(ctx, s)
}

func (h ladderHost) Boot(ctx context.Context, p nix.StorePath, d time.Duration) (activation.Result, error) {
	return h.b.Boot(ctx, p, d, h.p.ID())
}

func (h ladderHost) Test(ctx context.Context, s attempt.System, d time.Duration) (activation.Result, error) {
	return h.b.TestUnchecked(ctx, s, d, h.p.ID())
}

func (h ladderHost) Running() (attempt.System, error) {
	return attempt.System{Path: h.b.running}, nil
}

func (h ladderHost) Recovered(context.Context) error {
	if h.b.cut[h.b.running] || h.b.bad[h.b.running] || h.p.Baseline.UnitsChecked && len(h.b.newlyFailed(h.p.Baseline.FailedUnits)) > 0 {
		return errors.New("it is not what it was")
	}
	return nil
}

func (h ladderHost) StartAgent(context.Context) error { return nil }
func (h ladderHost) CanReboot() bool                  { return h.b.units }

func (h ladderHost) Reboot(context.Context) error {
	panic(powerLost{})
}

// stages are the timers.
type stages struct{ *body }

func (s stages) Arm(_ context.Context, p attempt.Plan, stage activation.Stage, _ time.Duration) error {
	s.act("arm "+string('0'+rune(stage)), func() { s.timers[stage] = p })
	return nil
}

func (s stages) Disarm(_ context.Context, _ attempt.Plan, stage activation.Stage) error {
	s.act("disarm "+string('0'+rune(stage)), func() { delete(s.timers, stage) })
	return nil
}

func (b *body) Arm(ctx context.Context, p attempt.Plan) error {
	if !b.units {
		return nil
	}
	return stages{b}.Arm(ctx, p, activation.StageActivation, 0)
}

func (b *body) Settle(ctx context.Context, p attempt.Plan) error {
	if !b.units {
		return nil
	}
	return errors.Join(stages{b}.Disarm(ctx, p, activation.StageActivation), stages{b}.Disarm(ctx, p, activation.StageConfirm))
}

func (b *body) Activate(ctx context.Context, p attempt.Plan) (a attempt.Activation, err error) {
	helper := &activation.Helper{Switch: switcher{b}, BootID: b.boot}
	if b.units {
		helper.Timers = stages{b}
		helper.Freshen = func(context.Context, attempt.Plan) error {
			b.act("freshen agent", func() { b.restart = b.replaces[b.running] && b.agentOf != b.running })
			return nil
		}
	}
	ended := b.process(&b.inHelper, func() { a, err = helper.Run(ctx, attempt.At(p.StateDir, p.Number)) })
	if b.restart {
		b.restart = false
		panic(killed{})
	}
	if !ended {
		return b.lost(p)
	}
	return a, err
}

func (b *body) lost(p attempt.Plan) (attempt.Activation, error) {
	a, err := attempt.At(p.StateDir, p.Number).Activation()
	if err == nil && !a.Ended {
		err = errors.New("the activation ended and left no result")
	}
	return a, err
}

func (b *body) Join(_ context.Context, p attempt.Plan) (attempt.Activation, bool, error) {
	a, err := attempt.At(p.StateDir, p.Number).Activation()
	return a, err == nil && a.Ended, err
}

func (b *body) Stale(context.Context, attempt.Plan) (string, error) {
	if b.units && b.replaces[b.running] && b.agentOf != b.running {
		return "it is the old one", nil
	}
	return "", nil
}

func (b *body) Rollback(_ context.Context, p attempt.Plan) (r attempt.RollbackRecord, err error) {
	if !b.process(new(bool), func() { r, err = b.ladder(p, activation.TriggerAgent) }) {
		return r, errors.New("the roll-back was killed")
	}
	return r, err
}

func (b *body) ladder(p attempt.Plan, trigger string) (attempt.RollbackRecord, error) {
	b.inLadder = true
	defer func() { b.inLadder = false }()
	ladder := &deadman.Ladder{Host: ladderHost{b, p}, Trigger: trigger, BootID: b.boot, Clock: clock.RealClock{}, Log: slog.New(slog.DiscardHandler)}
	return ladder.Climb(context.Background(), attempt.At(p.StateDir, p.Number))
}
