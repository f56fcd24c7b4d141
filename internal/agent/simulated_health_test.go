// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package agent

import (
	"context"
	"slices"
	"strings"

	"github.com/nixfleet/nixfleet/internal/health"
)

func (b *body) Once(ctx context.Context, c []health.Check) []health.Result {
	return b.UntilHealthy(ctx, c)
}

func (b *body) UntilHealthy(_ context.Context, checks []health.Check) []health.Result {
	var out []health.Result
	for _, c := range checks {
		b.probes++
		if c.FailedUnits != nil {
			failed := b.newlyFailed(c.FailedUnits.Before.Troubled)
			out = append(out, health.Result{Name: c.Name, Healthy: len(failed) == 0, Message: strings.Join(failed, ", ") + " failed", Units: failed})
			continue
		}
		out = append(out, health.Result{Name: "web", Healthy: !b.bad[b.running], Message: "connection refused by " + c.Name})
	}
	return out
}

func (b *body) Baseline(context.Context) (*health.Baseline, error) {
	if !b.units {
		return nil, nil
	}
	return &health.Baseline{Troubled: slices.Clone(b.broken)}, b.baselineErr
}

// newlyFailed are the units that have failed and had not before.
func (b *body) newlyFailed(before []string) []string {
	return slices.DeleteFunc(slices.Clone(b.broken), func(name string) bool { return slices.Contains(before, name) })
}
