// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

//go:build integration

package rollout

import (
	"context"
	"sync"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	watchtools "k8s.io/client-go/tools/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// follow calls event with every version of every object of a kind, from those that are
// stored now on, in the order in which they were stored. It misses none: the API server
// ends the watch of a client that is slow, and the next one begins where that ended. What
// cannot be followed any more is an event with another object. It ends with ctx.
func follow(ctx context.Context, ended *sync.WaitGroup, list client.ObjectList, event func(watch.Event)) {
	GinkgoHelper()
	watched, err := client.NewWithWatch(env.Config, client.Options{Scheme: env.Scheme, Mapper: env.Client.RESTMapper()})
	Expect(err).NotTo(HaveOccurred())
	Expect(watched.List(ctx, list)).To(Succeed())
	Expect(meta.EachListItem(list, func(o runtime.Object) error {
		event(watch.Event{Type: watch.Added, Object: o})
		return nil
	})).To(Succeed())
	w, err := watchtools.NewRetryWatcherWithContext(ctx, list.GetResourceVersion(), watcher{watched, list})
	Expect(err).NotTo(HaveOccurred())
	ended.Go(func() {
		for e := range w.ResultChan() {
			if ctx.Err() != nil {
				return // what comes now is that the connection was closed
			}
			event(e)
		}
	})
}

// watcher watches one kind.
type watcher struct {
	client client.WithWatch
	kind   client.ObjectList
}

// WatchWithContext begins a watch.
func (w watcher) WatchWithContext(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
	return w.client.Watch(ctx, w.kind.DeepCopyObject().(client.ObjectList), &client.ListOptions{Raw: &o})
}
