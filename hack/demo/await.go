// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

// fleetNamespace is that of the samples.
const fleetNamespace = "fleet"

// awaitTimeout bounds each wait of the demo.
const awaitTimeout = 90 * time.Second

// kind is a kind of objects to watch.
type kind[T client.Object] struct {
	example T
	list    client.ObjectList
}

func hostKind() kind[*nfv1.Host] { return kind[*nfv1.Host]{&nfv1.Host{}, &nfv1.HostList{}} }

func releaseKind() kind[*nfv1.Release] {
	return kind[*nfv1.Release]{&nfv1.Release{}, &nfv1.ReleaseList{}}
}

func rolloutKind() kind[*nfv1.Rollout] {
	return kind[*nfv1.Rollout]{&nfv1.Rollout{}, &nfv1.RolloutList{}}
}

// await watches the objects of a kind until met says that they are as expected, and says
// what was seen last if they are not in time. met gets all objects of the fleet by name.
func await[T client.Object](d *demo, k kind[T], expected string, met func(map[string]T) (ok bool, saw string)) error {
	ctx, cancel := context.WithTimeout(d.ctx, awaitTimeout)
	defer cancel()
	objects := map[string]T{}
	saw := "nothing"
	_, err := watchtools.UntilWithSync(ctx, d.listWatch(k.list), k.example, nil, func(event watch.Event) (bool, error) {
		object, ok := event.Object.(T)
		if !ok {
			return false, fmt.Errorf("watch: %T", event.Object)
		}
		if event.Type == watch.Deleted {
			delete(objects, object.GetName())
		} else {
			objects[object.GetName()] = object
		}
		ok, saw = met(objects)
		return ok, nil
	})
	if err == nil {
		return nil
	}
	if d.ctx.Err() != nil {
		return context.Cause(d.ctx)
	}
	if ctx.Err() != nil {
		return fmt.Errorf("expected within %s: %s; saw: %s", awaitTimeout, expected, saw)
	}
	return errors.Join(fmt.Errorf("expected: %s; saw: %s", expected, saw), err)
}

func (d *demo) listWatch(list client.ObjectList) *cache.ListWatch {
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			into, ok := list.DeepCopyObject().(client.ObjectList)
			if !ok {
				return nil, fmt.Errorf("list into %T", list)
			}
			err := d.api.List(ctx, into, &client.ListOptions{Namespace: fleetNamespace, Raw: &options})
			return into, err
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			return d.api.Watch(ctx, list, &client.ListOptions{Namespace: fleetNamespace, Raw: &options})
		},
	}
}

// awaitHosts waits until each of the hosts is as expected.
func (d *demo) awaitHosts(expected string, names []string, met func(*nfv1.Host) (ok bool, saw string)) error {
	return await(d, hostKind(), expected, func(hosts map[string]*nfv1.Host) (bool, string) {
		var not []string
		for _, name := range names {
			h, found := hosts[name]
			if !found {
				not = append(not, name+" does not exist")
				continue
			}
			if ok, saw := met(h); !ok {
				not = append(not, name+": "+saw)
			}
		}
		return len(not) == 0, strings.Join(not, "; ")
	})
}

// awaitRollout waits until a rollout is in a phase, under the latest spec.
func (d *demo) awaitRollout(name string, phase nfv1.RolloutPhase) error {
	return await(d, rolloutKind(), fmt.Sprintf("rollout %s is %s", name, phase), func(rollouts map[string]*nfv1.Rollout) (bool, string) {
		r, found := rollouts[name]
		if !found {
			return false, "it does not exist"
		}
		current := r.Status.ObservedGeneration == r.Generation
		return current && r.Status.Phase == phase, fmt.Sprintf("%s: %s", r.Status.Phase, r.Status.Message)
	})
}

// awaitAPI waits until the API answers. A control plane that was killed comes back.
func (d *demo) awaitAPI() error {
	ctx, cancel := context.WithTimeout(d.ctx, awaitTimeout)
	defer cancel()
	answered := func(cache.Store) (bool, error) { return true, nil }
	_, err := watchtools.UntilWithSync(ctx, d.listWatch(&nfv1.HostList{}), &nfv1.Host{}, answered)
	if err != nil {
		return fmt.Errorf("expected the API to answer within %s: %w", awaitTimeout, err)
	}
	return nil
}

// getRollout reads a rollout.
func (d *demo) getRollout(name string) (*nfv1.Rollout, error) {
	var r *nfv1.Rollout
	err := await(d, rolloutKind(), "rollout "+name, func(rollouts map[string]*nfv1.Rollout) (found bool, saw string) {
		r, found = rollouts[name]
		return found, strings.Join(sortedKeys(rollouts), ", ")
	})
	return r, err
}

// getHosts reads all hosts, by name.
func (d *demo) getHosts() (map[string]*nfv1.Host, error) {
	var all map[string]*nfv1.Host
	err := await(d, hostKind(), "all hosts", func(hosts map[string]*nfv1.Host) (bool, string) {
		all = hosts
		return len(hosts) == len(d.hosts), strings.Join(sortedKeys(hosts), ", ")
	})
	return all, err
}

func (d *demo) names() []string {
	var all []string
	for _, h := range d.hosts {
		all = append(all, h.name)
	}
	return all
}

// others are all hosts but those.
func (d *demo) others(but ...string) []string {
	return slices.DeleteFunc(d.names(), func(name string) bool { return slices.Contains(but, name) })
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
