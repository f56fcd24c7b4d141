// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package release

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/nixfleet/nixfleet/internal/nix"
	"github.com/nixfleet/nixfleet/internal/nix/binarycache"
)

// heldVerifier answers when it is let go.
type heldVerifier struct {
	begun   chan struct{}
	release chan struct{}
	running atomic.Int32
	most    atomic.Int32
}

func newHeldVerifier() *heldVerifier {
	return &heldVerifier{begun: make(chan struct{}, 100), release: make(chan struct{})}
}

func (v *heldVerifier) enter() {
	n := v.running.Add(1)
	for {
		most := v.most.Load()
		if n <= most || v.most.CompareAndSwap(most, n) {
			return
		}
	}
}

func (v *heldVerifier) Closure(ctx context.Context, toplevels []nix.StorePath, _ []string, _ nix.PublicKeys) (binarycache.Report, error) {
	v.enter()
	defer v.running.Add(-1)
	v.begun <- struct{}{}
	select {
	case <-v.release:
		return binarycache.Report{Paths: int64(len(toplevels))}, nil
	case <-ctx.Done():
		return binarycache.Report{}, context.Cause(ctx)
	}
}

func key(name string) types.NamespacedName {
	return types.NamespacedName{Namespace: "fleet", Name: name}
}

func TestChecksRunAFewAtOnce(t *testing.T) {
	v := newHeldVerifier()
	c := NewChecks(v, 2, time.Hour)
	t.Cleanup(c.Stop)
	for _, name := range []string{"a", "b", "c", "d"} {
		c.begin(key(name), types.UID(name), request{})
		c.begin(key(name), types.UID(name), request{}) // Once is enough.
		if !c.state(key(name), types.UID(name)).running {
			t.Errorf("%s does not run", name)
		}
	}
	<-v.begun
	<-v.begun
	close(v.release)
	done := map[string]int{}
	for range 4 {
		done[(<-c.Done()).Object.Name]++
	}
	if len(done) != 4 || v.most.Load() != 2 {
		t.Errorf("done %v, at most %d at once", done, v.most.Load())
	}
	s := c.state(key("a"), "a")
	if s.running || s.outcome == nil || s.outcome.err != nil {
		t.Errorf("state after the check: %+v", s)
	}
	retryAt := time.Unix(5, 0)
	c.settle(key("a"), "a", 3, retryAt)
	if s := c.state(key("a"), "a"); s.outcome != nil || s.retries != 3 || s.retryAt != retryAt {
		t.Errorf("state after it was settled: %+v", s)
	}
}

func TestChecksTellReleasesOfOneNameApart(t *testing.T) {
	v := newHeldVerifier()
	c := NewChecks(v, 1, time.Hour)
	t.Cleanup(c.Stop)
	c.begin(key("a"), "old", request{})
	<-v.begun
	if c.state(key("a"), "new").running {
		t.Error("a new release has the check of the old one")
	}
	c.begin(key("a"), "new", request{}) // Ends the old one.
	<-v.begun
	if c.state(key("a"), "old").running || !c.state(key("a"), "new").running {
		t.Error("the old release still has a check")
	}
	close(v.release)
	<-c.Done()
	if c.state(key("a"), "new").outcome == nil {
		t.Error("no outcome")
	}
	c.forget(key("a"))
	if c.state(key("a"), "new").outcome != nil {
		t.Error("a release that is gone has an outcome")
	}
}

func TestChecksEnd(t *testing.T) {
	t.Run("in time", func(t *testing.T) {
		c := NewChecks(newHeldVerifier(), 1, time.Millisecond)
		t.Cleanup(c.Stop)
		c.begin(key("a"), "a", request{})
		<-c.Done()
		if err := c.state(key("a"), "a").outcome.err; !errors.Is(err, errTimeout) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("in time, while they wait for others", func(t *testing.T) {
		c := NewChecks(newHeldVerifier(), 1, time.Millisecond)
		t.Cleanup(c.Stop)
		c.begin(key("a"), "a", request{})
		c.begin(key("b"), "b", request{})
		<-c.Done()
		<-c.Done()
	})
	t.Run("with the manager", func(t *testing.T) {
		v := newHeldVerifier()
		c := NewChecks(v, 1, time.Hour)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := c.Start(ctx); err != nil {
				t.Error(err)
			}
		})
		c.begin(key("a"), "a", request{})
		<-v.begun
		cancel()
		wg.Wait()
		c.begin(key("b"), "b", request{})
		if v.running.Load() != 0 || c.state(key("b"), "b").running {
			t.Error("a check runs after the end")
		}
	})
}
