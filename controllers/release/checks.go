// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package release

import (
	"context"
	"errors"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"github.com/nixfleet/nixfleet/internal/nix"
	"github.com/nixfleet/nixfleet/internal/nix/binarycache"
)

// Verifier checks closures. *binarycache.Client is one.
type Verifier interface {
	Closure(ctx context.Context, toplevels []nix.StorePath, caches []string, keys nix.PublicKeys) (binarycache.Report, error)
}

// request is what to check.
type request struct {
	toplevels []nix.StorePath
	caches    []string
	keys      nix.PublicKeys
}

// outcome is how a check ended: with a report, or with what kept it from making one.
type outcome struct {
	report binarycache.Report
	err    error
}

// checkState is what is known of the checks of a release. The zero value is that of a
// release that was not checked since the controller started.
type checkState struct {
	running bool
	outcome *outcome  // ended and not in the status yet
	retries int       // checks in a row that led to no verdict
	retryAt time.Time // when to check again after those
}

// Checks runs checks of releases, a few at once. It remembers only what is lost without
// harm: after a restart, releases without a verdict are checked again.
type Checks struct {
	verifier Verifier
	timeout  time.Duration
	slots    chan struct{}
	done     chan event.TypedGenericEvent[types.NamespacedName]

	ctx    context.Context // of all checks, which outlive the reconciliation that started them
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	entries map[types.NamespacedName]*entry
}

type entry struct {
	uid    types.UID
	state  checkState
	cancel context.CancelFunc
}

var (
	errShutdown = errors.New("the controller stops")
	errTimeout  = errors.New("the check took too long")
)

// NewChecks returns checks of which at most concurrency run at once, each at most for
// timeout. They end with Start's context, or with Stop.
func NewChecks(verifier Verifier, concurrency int, timeout time.Duration) *Checks {
	c := &Checks{
		verifier: verifier, timeout: timeout,
		slots:   make(chan struct{}, max(concurrency, 1)),
		done:    make(chan event.TypedGenericEvent[types.NamespacedName]),
		entries: make(map[types.NamespacedName]*entry),
	}
	c.ctx, c.cancel = context.WithCancelCause(context.Background())
	return c
}

// Start ends the checks when ctx ends. The manager calls it.
func (c *Checks) Start(ctx context.Context) error {
	<-ctx.Done()
	c.Stop()
	return nil
}

// Stop ends all checks and waits for them. No check can be started afterwards.
func (c *Checks) Stop() {
	c.mu.Lock()
	c.cancel(errShutdown)
	c.mu.Unlock()
	c.wg.Wait()
}

// Done tells which release to reconcile because its check has ended. Somebody has to
// receive from it.
func (c *Checks) Done() <-chan event.TypedGenericEvent[types.NamespacedName] { return c.done }

// state is what is known of the release with this UID.
func (c *Checks) state(key types.NamespacedName, uid types.UID) checkState {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.entries[key]; e != nil && e.uid == uid {
		return e.state
	}
	return checkState{}
}

// begin starts a check unless one is running. What an earlier release of that name left
// is dropped.
func (c *Checks) begin(key types.NamespacedName, uid types.UID, req request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ctx.Err() != nil {
		return
	}
	e := c.entries[key]
	if e == nil || e.uid != uid {
		c.drop(key)
		e = &entry{uid: uid}
		c.entries[key] = e
	}
	if e.state.running {
		return
	}
	e.state.running, e.state.outcome = true, nil
	var ctx context.Context
	ctx, e.cancel = context.WithTimeoutCause(c.ctx, c.timeout, errTimeout)
	c.wg.Add(1)
	go c.run(ctx, key, e, req)
}

func (c *Checks) run(ctx context.Context, key types.NamespacedName, e *entry, req request) {
	defer c.wg.Done()
	defer e.cancel()
	select {
	case c.slots <- struct{}{}:
	case <-ctx.Done():
		c.finish(key, e, outcome{err: context.Cause(ctx)})
		return
	}
	report, err := c.verifier.Closure(ctx, req.toplevels, req.caches, req.keys)
	<-c.slots
	c.finish(key, e, outcome{report: report, err: err})
}

func (c *Checks) finish(key types.NamespacedName, e *entry, o outcome) {
	c.mu.Lock()
	e.state.running = false
	e.state.outcome = &o
	current := c.entries[key] == e
	c.mu.Unlock()
	if !current {
		return // The release is gone.
	}
	select {
	case c.done <- event.TypedGenericEvent[types.NamespacedName]{Object: key}:
	case <-c.ctx.Done():
	}
}

// settle notes that the outcome is in the status, and when to try again.
func (c *Checks) settle(key types.NamespacedName, uid types.UID, retries int, retryAt time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.entries[key]; e != nil && e.uid == uid && !e.state.running {
		e.state = checkState{retries: retries, retryAt: retryAt}
	}
}

// forget ends the check of a release that is gone.
func (c *Checks) forget(key types.NamespacedName) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drop(key)
}

func (c *Checks) drop(key types.NamespacedName) {
	if e := c.entries[key]; e != nil && e.cancel != nil {
		e.cancel()
	}
	delete(c.entries, key)
}
