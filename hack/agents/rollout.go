// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/nix"
)

const look = time.Second

// rollOut makes a release of systems that nobody has built, and waits for the end.
func (f *fleet) rollOut(ctx context.Context) error {
	m := metav1.ObjectMeta{Namespace: f.namespace, Name: f.release}
	rel := &nfv1.Release{ObjectMeta: m, Spec: nfv1.ReleaseSpec{
		Verification: nfv1.VerificationSkip, Hosts: map[string]nfv1.StorePath{},
		Caches: []nfv1.BinaryCache{{
			URL: "https://cache.example.org", PublicKeys: []nfv1.NixPublicKey{"cache.example.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY="},
		}},
	}}
	for i := range f.agents {
		name := fmt.Sprintf("%s-%04d", f.prefix, i)
		rel.Spec.Hosts[name] = nfv1.StorePath(storePath(name, f.release))
	}
	all := intstr.FromString("100%")
	ro := &nfv1.Rollout{ObjectMeta: m, Spec: nfv1.RolloutSpec{
		Release: f.release, FailureThreshold: &all,
		Selector: &nfv1.HostSelector{MatchLabels: map[string]nfv1.LabelValue{label: nfv1.LabelValue(f.prefix)}},
	}}
	for _, object := range []client.Object{rel, ro} {
		if err := f.client.Create(ctx, object); err != nil {
			return err
		}
	}
	begin := time.Now()
	err := f.await(ctx, "done", f.rolloutDone)
	f.say("rollout %s took %s", f.release, time.Since(begin).Round(time.Millisecond))
	return err
}

// await says how far things are until they are done.
func (f *fleet) await(ctx context.Context, what string, done func(context.Context) (bool, string, error)) error {
	last := ""
	err := wait.PollUntilContextTimeout(ctx, look, f.timeout, true, func(ctx context.Context) (bool, error) {
		ok, state, err := done(ctx)
		if err != nil {
			return false, err
		}
		if state != last {
			f.say("%s  %s", time.Now().Format(time.TimeOnly), state)
			last = state
		}
		return ok, nil
	})
	if err != nil {
		return fmt.Errorf("wait until the hosts are %s: %w; last: %s", what, err, last)
	}
	return nil
}

func (f *fleet) list(ctx context.Context) ([]nfv1.Host, error) {
	var hosts nfv1.HostList
	err := f.client.List(ctx, &hosts, client.InNamespace(f.namespace), client.MatchingLabels{label: f.prefix})
	return hosts.Items, err
}

func (f *fleet) allOnline(ctx context.Context) (bool, string, error) {
	hosts, err := f.list(ctx)
	online := 0
	for i := range hosts {
		if meta.IsStatusConditionTrue(hosts[i].Status.Conditions, nfv1.ConditionOnline) && hosts[i].Status.Running != nil {
			online++
		}
	}
	return online == f.agents, fmt.Sprintf("%d of %d online", online, f.agents), err
}

func (f *fleet) rolloutDone(ctx context.Context) (bool, string, error) {
	var ro nfv1.Rollout
	err := f.client.Get(ctx, f.key(), &ro)
	return ro.Status.Phase.Finished(), fmt.Sprintf("%s, hosts %s: %s", ro.Status.Phase, ro.Status.HostProgress, ro.Status.Message), err
}

// report says what became of the hosts, and how long they took to begin.
func (f *fleet) report(ctx context.Context) {
	hosts, err := f.list(ctx)
	if err != nil {
		f.say("the hosts cannot be listed: %v", err)
		return
	}
	outcomes := map[string]int{}
	for i := range hosts {
		if a := hosts[i].Status.Attempt; a != nil {
			outcomes[string(a.Outcome)+" "+a.Reason]++
		}
	}
	for outcome, n := range outcomes {
		f.say("%6d  %s", n, outcome)
	}
	took := f.times.delays()
	if len(took) == 0 {
		return
	}
	at := func(share float64) time.Duration {
		return took[int(share*float64(len(took)-1))].Round(100 * time.Microsecond)
	}
	f.say("from the assignment in a watch of the API to the fetch on the host, %d times: median %s, 90 %% %s, most %s", len(took), at(0.5), at(0.9), at(1))
}

// times are the moments at which assignments were visible and fetches began.
type times struct {
	mu      sync.Mutex
	visible map[nix.StorePath]time.Time
	began   map[nix.StorePath]time.Time
}

// fetching notes that a fetch begins.
func (t *times) fetching(_ string, path nix.StorePath) { t.note(&t.began, path) }

func (t *times) note(in *map[nix.StorePath]time.Time, path nix.StorePath) {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	if *in == nil {
		*in = map[nix.StorePath]time.Time{}
	}
	if _, known := (*in)[path]; !known {
		(*in)[path] = now
	}
}

// watch notes when assignments are visible to somebody who watches the API itself.
func (t *times) watch(ctx context.Context, f *fleet) {
	w, err := f.client.Watch(ctx, &nfv1.HostList{}, client.InNamespace(f.namespace), client.MatchingLabels{label: f.prefix})
	if err != nil {
		f.say("assignments are not timed: %v", err)
		return
	}
	defer w.Stop()
	for event := range w.ResultChan() {
		if h, ok := event.Object.(*nfv1.Host); ok && h.Spec.Desired != nil {
			t.note(&t.visible, nix.StorePath(h.Spec.Desired.StorePath))
		}
	}
}

// delays are the times between both, shortest first. An agent that was quicker than the
// watch of this program counts as 0.
func (t *times) delays() []time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []time.Duration
	for path, began := range t.began {
		if visible, ok := t.visible[path]; ok {
			out = append(out, max(began.Sub(visible), 0))
		}
	}
	slices.Sort(out)
	return out
}
