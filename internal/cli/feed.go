// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/cache"
)

// source is one kind of object to read or follow.
type source struct {
	resource string
	lister   *cache.ListWatch
	example  runtime.Object
}

// feed follows sources by watches. Its stores always hold the last known state.
type feed struct {
	stores  []cache.Store
	changed chan struct{}
	failed  chan error
	errOut  io.Writer

	mu sync.Mutex
	// filled is set once every store is filled.
	filled bool
	// lost are the resources whose watch is broken at the moment.
	lost map[string]bool
}

// follow starts to follow the sources and returns when each store is filled once. The
// watches end with the context. A watch that breaks later, because the API server is
// restarted for instance, is taken up again by itself; that is said once on errOut.
func follow(ctx context.Context, errOut io.Writer, sources ...source) (*feed, error) {
	f := &feed{changed: make(chan struct{}, 1), failed: make(chan error, 1), errOut: errOut, lost: map[string]bool{}}
	synced := make([]cache.InformerSynced, 0, len(sources))
	for _, s := range sources {
		informer := cache.NewSharedIndexInformerWithOptions(s.lister, s.example, cache.SharedIndexInformerOptions{})
		if err := f.attach(s.resource, informer); err != nil {
			return nil, err
		}
		f.stores = append(f.stores, informer.GetStore())
		synced = append(synced, informer.HasSynced)
		go informer.RunWithContext(ctx)
	}
	done := make(chan bool, 1)
	go func() { done <- cache.WaitForCacheSync(ctx.Done(), synced...) }()
	select {
	case ok := <-done:
		if !ok {
			return nil, context.Cause(ctx)
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		f.filled = true
		return f, nil
	case err := <-f.failed:
		return nil, err
	}
}

func (f *feed) attach(resource string, informer cache.SharedIndexInformer) error {
	notify := func() {
		f.restored(resource)
		select {
		case f.changed <- struct{}{}:
		default: // A change that was not looked at yet covers this one.
		}
	}
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { notify() },
		UpdateFunc: func(any, any) { notify() },
		DeleteFunc: func(any) { notify() },
	})
	if err != nil {
		return fmt.Errorf("follow %s: %w", resource, err)
	}
	err = informer.SetWatchErrorHandlerWithContext(func(ctx context.Context, _ *cache.Reflector, err error) {
		f.broken(ctx, resource, err)
	})
	if err != nil {
		return fmt.Errorf("follow %s: %w", resource, err)
	}
	return nil
}

// broken is called for every watch or list that fails. A refusal at the start ends the
// feed; everything else is tried again by the informer, with a growing pause: an API
// server that comes back refuses for some seconds what it will allow.
func (f *feed) broken(ctx context.Context, resource string, err error) {
	if ctx.Err() != nil || errors.Is(err, io.EOF) || apierrors.IsResourceExpired(err) || apierrors.IsGone(err) {
		return // The ordinary end of a watch.
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.filled && (apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err) || apierrors.IsNotFound(err)) {
		select {
		case f.failed <- explain(resource, err):
		default: // One refusal is enough.
		}
		return
	}
	if !f.lost[resource] {
		f.lost[resource] = true
		// Nothing is lost if this cannot be written: the command goes on.
		_, _ = fmt.Fprintf(f.errOut, "connection lost (%s), trying again: %v\n", resource, err)
	}
}

func (f *feed) restored(resource string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.lost, resource)
}

// objects returns what a store holds, typed. The objects are shared: they are not to be
// changed.
func objects[T any](store cache.Store) []*T {
	var all []*T
	for _, item := range store.List() {
		if object, ok := item.(*T); ok {
			all = append(all, object)
		}
	}
	return all
}
