// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package cli

import (
	"context"
	"errors"
	"slices"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/cli/view"
)

// frameInterval is the shortest time between two frames. A large fleet changes many times
// a second; nobody reads that fast.
const frameInterval = time.Second

// follow shows the fleet until the context ends, which is not a failure: that is how a
// watch is left.
func (o *statusOptions) follow(ctx context.Context, a *api) error {
	sources := []source{a.hosts(o.scope(a)), a.leasesOf(o.scope(a))}
	if len(o.names) > 0 {
		sources = append(sources, a.rollouts(scope{namespace: a.namespace}))
	}
	out := newScreen(o.streams.Out)
	f, err := follow(ctx, o.streams.ErrOut, out.terminal(), sources...)
	if err != nil {
		return ended(ctx, err)
	}
	show := func() error {
		v := o.view(out.width())
		return out.draw(o.render(o.state(f), v) + view.Note(f.note(), v))
	}
	if !out.terminal() {
		rows := &rowLog{known: map[types.NamespacedName]string{}}
		show = func() error { return rows.show(o, o.state(f)) }
	}
	return ended(ctx, frames(ctx, o.streams.Clock, show))
}

func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, context.Cause(ctx)) {
		return nil
	}
	return err
}

// frames calls show at once and then once an interval: what is followed may have changed,
// and ages grow in any case.
func frames(ctx context.Context, clock clock.WithTicker, show func() error) error {
	ticker := clock.NewTicker(frameInterval)
	defer ticker.Stop()
	for {
		if err := show(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-ticker.C():
		}
	}
}

func (o *statusOptions) state(f *feed) fleetState {
	state := fleetState{hosts: objects[nfv1.Host](f.stores[0]), leases: objects[coordinationv1.Lease](f.stores[1])}
	if len(o.names) > 0 {
		state.hosts = slices.DeleteFunc(state.hosts, func(h *nfv1.Host) bool { return !slices.Contains(o.names, h.Name) })
		for _, r := range objects[nfv1.Rollout](f.stores[2]) {
			state.rollouts = append(state.rollouts, *r)
		}
	}
	return state
}

// rowLog writes a line for each host that changed, where nothing can be redrawn.
type rowLog struct {
	started bool
	known   map[types.NamespacedName]string
}

func (l *rowLog) show(o *statusOptions, state fleetState) error {
	members := state.members()
	rows := view.FleetRows(members, o.view(0))
	if !l.started {
		l.started = true
		if err := write(o.streams.Out, rows[0]+"\n"); err != nil {
			return err
		}
	}
	for i, m := range members {
		key := types.NamespacedName{Namespace: m.Host.Namespace, Name: m.Host.Name}
		row := rows[i+1]
		if l.known[key] == row {
			continue
		}
		l.known[key] = row
		if err := write(o.streams.Out, row+"\n"); err != nil {
			return err
		}
	}
	return nil
}
