// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package cli

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
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
	// redraws says that the screen is redrawn once the stores are filled: a line in between
	// would spoil it, and the frames have a note instead.
	redraws bool

	mu sync.Mutex
	// filled is set once every store is filled.
	filled bool
	// lost are the resources whose watch is broken at the moment, and why.
	lost map[string]error
}

// follow starts to follow the sources and returns when each store is filled once. The
// watches end with the context. A watch that breaks later, because the API server is
// restarted for instance, is taken up again by itself.
func follow(ctx context.Context, errOut io.Writer, redraws bool, sources ...source) (*feed, error) {
	f := &feed{changed: make(chan struct{}, 1), failed: make(chan error, 1), errOut: errOut, redraws: redraws, lost: map[string]error{}}
	// client-go logs what answered is told.
	ctx = klog.NewContext(ctx, logr.Discard())
	synced := make([]cache.InformerSynced, 0, len(sources))
	for _, s := range sources {
		informer := cache.NewSharedIndexInformerWithOptions(f.noticing(s), s.example, cache.SharedIndexInformerOptions{})
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
	return nil
}

// answered is told how each list and each start of a watch went. A refusal at the start
// ends the feed; everything else is tried again by the informer, with a growing pause: an
// API server that comes back refuses for some seconds what it will allow.
func (f *feed) answered(ctx context.Context, resource string, err error) {
	if ctx.Err() != nil || apierrors.IsResourceExpired(err) || apierrors.IsGone(err) {
		return // The ordinary end of a watch: what it began at is too old.
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil {
		delete(f.lost, resource)
		return
	}
	if !f.filled && refused(err) {
		select {
		case f.failed <- explain(resource, err):
		default: // One refusal is enough.
		}
		return
	}
	_, known := f.lost[resource]
	f.lost[resource] = err
	if !known && (!f.redraws || !f.filled) {
		// Nothing is lost if this cannot be written: the command goes on.
		_, _ = fmt.Fprintf(f.errOut, "connection lost (%s), trying again: %v\n", resource, err)
	}
}

// refused says whether an error at the start is not worth waiting for.
func refused(err error) bool {
	return apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err) || apierrors.IsNotFound(err) || utilnet.IsConnectionRefused(err)
}

// noticing is the source's lister, and notices whether it works. Informers keep some
// failures to themselves, and there may be no news when all is well again.
func (f *feed) noticing(s source) *cache.ListWatch {
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			list, err := s.lister.ListWithContext(ctx, options)
			f.answered(ctx, s.resource, err)
			return list, err
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			w, err := s.lister.WatchWithContext(ctx, options)
			f.answered(ctx, s.resource, err)
			return w, err
		},
	}
}

// note says that what is shown may be old; it is empty if it is not.
func (f *feed) note() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, resource := range slices.Sorted(maps.Keys(f.lost)) {
		return fmt.Sprintf("connection lost, trying again; this may be old (%s: %v)", resource, f.lost[resource])
	}
	return ""
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
