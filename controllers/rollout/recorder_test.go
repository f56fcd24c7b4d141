// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

//go:build integration

package rollout

import (
	"context"
	"fmt"
	"sync"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

// recorder keeps every version of every object that is stored while it runs. The
// versions of a kind are in the order in which they were stored.
type recorder struct {
	mu       sync.Mutex
	hosts    []version[*nfv1.Host]
	rollouts []version[*nfv1.Rollout]
	releases []version[*nfv1.Release]
	last     map[types.UID]string
	failed   error
}

type version[T client.Object] struct {
	object  T
	deleted bool
}

func startRecorder(ctx context.Context) *recorder {
	GinkgoHelper()
	r := &recorder{last: map[types.UID]string{}}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var done sync.WaitGroup
	for _, list := range []client.ObjectList{&nfv1.HostList{}, &nfv1.ReleaseList{}, &nfv1.RolloutList{}} {
		follow(ctx, &done, list, r.add)
	}
	DeferCleanup(func() {
		cancel()
		done.Wait()
	})
	return r
}

func (r *recorder) add(e watch.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	deleted := e.Type == watch.Deleted
	switch o := e.Object.(type) {
	case *nfv1.Host:
		r.hosts = append(r.hosts, version[*nfv1.Host]{o, deleted})
		r.last[o.UID] = o.ResourceVersion
	case *nfv1.Rollout:
		r.rollouts = append(r.rollouts, version[*nfv1.Rollout]{o, deleted})
		r.last[o.UID] = o.ResourceVersion
	case *nfv1.Release:
		r.releases = append(r.releases, version[*nfv1.Release]{o, deleted})
		r.last[o.UID] = o.ResourceVersion
	default:
		r.failed = fmt.Errorf("watch of the recorder: %v", e.Object)
	}
}

// waitComplete waits until the recorder has seen what is stored in a namespace now.
func (r *recorder) waitComplete(ctx context.Context, namespace string) {
	GinkgoHelper()
	Eventually(ctx, func() []string {
		r.mu.Lock()
		defer r.mu.Unlock()
		Expect(r.failed).NotTo(HaveOccurred())
		var behind []string
		for _, o := range objectsIn(ctx, namespace) {
			if r.last[o.GetUID()] != o.GetResourceVersion() {
				behind = append(behind, o.GetName())
			}
		}
		return behind
	}).WithTimeout(soon).Should(BeEmpty(), "objects whose last version was not recorded")
}

// history is what happened in one namespace.
type history struct {
	hosts    []version[*nfv1.Host]
	rollouts []version[*nfv1.Rollout]
	releases []version[*nfv1.Release]
}

func (r *recorder) of(ctx context.Context, namespace string) history {
	GinkgoHelper()
	r.waitComplete(ctx, namespace)
	r.mu.Lock()
	defer r.mu.Unlock()
	return history{hosts: only(r.hosts, namespace), rollouts: only(r.rollouts, namespace), releases: only(r.releases, namespace)}
}

func only[T client.Object](all []version[T], namespace string) []version[T] {
	var out []version[T]
	for _, v := range all {
		if v.object.GetNamespace() == namespace {
			out = append(out, v)
		}
	}
	return out
}

// faults is what is wrong with any version of any object.
func (h history) faults() []string {
	var out []string
	for _, v := range h.hosts {
		out = append(out, kstatusFaults(v.object)...)
	}
	for _, v := range h.rollouts {
		out = append(out, kstatusFaults(v.object)...)
	}
	for _, v := range h.releases {
		out = append(out, kstatusFaults(v.object)...)
	}
	return append(append(out, h.assignmentFaults()...), h.capacityFaults()...)
}

// assignments are the values that spec.desired had on each host, in order.
func (h history) assignments() map[string][]nfv1.Desired {
	out := map[string][]nfv1.Desired{}
	for _, v := range h.hosts {
		d, name := v.object.Spec.Desired, v.object.Name
		if d == nil {
			continue
		}
		if all := out[name]; len(all) == 0 || all[len(all)-1].Revision != d.Revision {
			out[name] = append(all, *d)
		}
	}
	return out
}

// assignmentFaults are revisions that went down, assignments that changed under the same
// revision or went away, and hosts that were asked the same twice in one attempt.
func (h history) assignmentFaults() []string {
	var out []string
	before := map[types.UID]*nfv1.Desired{}
	asked := map[string]bool{}
	for _, v := range h.hosts {
		host, d, old := v.object, v.object.Spec.Desired, before[v.object.UID]
		at := fmt.Sprintf("host %s at %s: ", host.Name, host.ResourceVersion)
		switch {
		case d == nil && old != nil:
			out = append(out, at+"lost its assignment")
		case d == nil:
			continue
		case old != nil && d.Revision < old.Revision:
			out = append(out, fmt.Sprintf("%srevision %d after %d", at, d.Revision, old.Revision))
		case old != nil && d.Revision == old.Revision && (d.StorePath != old.StorePath || d.Intent != old.Intent || d.Wave != old.Wave):
			out = append(out, fmt.Sprintf("%srevision %d was changed", at, d.Revision))
		case (old == nil || d.Revision > old.Revision) && d.Rollout != nil && d.Intent != nfv1.IntentNone:
			what := fmt.Sprintf("%s by %s in attempt %d: %s", host.UID, d.Rollout.UID, d.Attempt, d.Intent)
			if asked[what] {
				out = append(out, at+"was assigned twice")
			}
			asked[what] = true
		}
		before[host.UID] = d
	}
	return out
}

// capacityFaults are moments at which more hosts of a wave were in flight, or worse off,
// than its maxUnavailable. Every host is taken to be available before it is assigned.
func (h history) capacityFaults() []string {
	limits := map[string]int32{}
	for _, v := range h.rollouts {
		for _, w := range v.object.Status.Waves {
			if w.MaxUnavailable > 0 {
				limits[string(v.object.UID)+"/"+w.Name] = w.MaxUnavailable
			}
		}
	}
	var out []string
	now := map[types.UID]*nfv1.Host{}
	for _, v := range h.hosts {
		now[v.object.UID] = v.object
		if v.deleted {
			delete(now, v.object.UID)
		}
		busy := map[string]int32{}
		for _, host := range now {
			if d := host.Spec.Desired; d != nil && d.Rollout != nil && d.Wave != "" && spendsPlace(host) {
				busy[string(d.Rollout.UID)+"/"+d.Wave]++
			}
		}
		for wave, n := range busy {
			if n > limits[wave] {
				out = append(out, fmt.Sprintf("at %s %d hosts of wave %s were unavailable of at most %d", v.object.ResourceVersion, n, wave, limits[wave]))
			}
		}
	}
	return out
}

// spendsPlace reads a Host as a person would, not as the planner does.
func spendsPlace(h *nfv1.Host) bool {
	d, a := h.Spec.Desired, h.Status.Attempt
	return d.Intent == nfv1.IntentDeploy && (a == nil || a.Revision != d.Revision || a.Outcome == "")
}
