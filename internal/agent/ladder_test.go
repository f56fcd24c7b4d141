// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package agent

import (
	"context"
	"errors"
	"time"

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
	if h.b.cut[h.b.running] || h.b.bad[h.b.running] {
		return errors.New("it is not what it was")
	}
	return nil
}

func (h ladderHost) StartAgent(context.Context) error { return nil }
func (h ladderHost) CanReboot() bool                  { return h.b.units }

func (h ladderHost) Reboot(context.Context) error {
	panic(powerLost{})
}
