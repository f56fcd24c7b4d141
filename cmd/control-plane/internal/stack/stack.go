// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package stack

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/go-logr/logr"
)

// StopTimeout is how long one part may take to stop before the parts below it
// are stopped regardless. It bounds the harm of a part that hangs; in order,
// each takes a second or two.
const StopTimeout = 10 * time.Second

// Stack is a number of running parts. It is used by one goroutine.
type Stack struct {
	ctx    context.Context
	fail   context.CancelCauseFunc
	detach context.Context
	parts  []*part
	log    logr.Logger
}

// part is one thing that runs.
type part struct {
	name   string
	cancel context.CancelFunc
	done   chan struct{}
	err    error
}

// New returns an empty stack. Cancelling ctx does not stop its parts; Stop
// does, in order.
func New(ctx context.Context, log logr.Logger) *Stack {
	watched, fail := context.WithCancelCause(ctx)
	return &Stack{ctx: watched, fail: fail, detach: context.WithoutCancel(ctx), log: log}
}

// Context ends when the parent does or when a part has failed; then
// context.Cause says which. Everything that waits for a part while the stack
// is built waits with it.
func (s *Stack) Context() context.Context { return s.ctx }

// Start runs a part on top of those that run. run must return soon after its
// context ends; if it returns before, with or without an error, that is a
// failure of the whole.
func (s *Stack) Start(name string, run func(context.Context) error) {
	ctx, cancel := context.WithCancel(s.detach)
	p := &part{name: name, cancel: cancel, done: make(chan struct{})}
	s.parts = append(s.parts, p)
	go func() {
		defer close(p.done)
		err := run(ctx)
		if ctx.Err() != nil {
			p.err = err
			return
		}
		if err == nil {
			err = errors.New("it stopped without being asked")
		}
		s.fail(fmt.Errorf("%s: %w", name, err))
	}()
}

// Stop stops the parts from the top to the bottom, each after the one above it
// has ended, and returns what they said to it.
func (s *Stack) Stop() error {
	var errs []error
	for len(s.parts) > 0 {
		top := s.parts[len(s.parts)-1]
		s.parts = s.parts[:len(s.parts)-1]
		errs = append(errs, s.stop(top))
	}
	s.fail(context.Canceled)
	return errors.Join(errs...)
}

func (s *Stack) stop(p *part) error {
	start := time.Now()
	p.cancel()
	timeout := time.NewTimer(StopTimeout)
	defer timeout.Stop()
	select {
	case <-p.done:
	case <-timeout.C:
		return fmt.Errorf("%s did not stop within %s", p.name, StopTimeout)
	}
	s.log.V(1).Info("Stopped", "part", p.name, "took", time.Since(start).Round(time.Millisecond).String())
	if p.err != nil && !errors.Is(p.err, context.Canceled) {
		return fmt.Errorf("stop %s: %w", p.name, p.err)
	}
	return nil
}
