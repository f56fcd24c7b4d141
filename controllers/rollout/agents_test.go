// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

//go:build integration

package rollout

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/ssa"
	"github.com/nixfleet/nixfleet/internal/testenv"
)

// fate is what becomes of an assignment on a simulated host.
type fate int

const (
	succeeds fate = iota
	rollsBack
	// stays reports the start and nothing more.
	stays
	// deaf does not even take the assignment up.
	deaf
)

// agents simulate the agents of all hosts of some namespaces. Each takes up what
// spec.desired asks and reports it three times, as one that needs more than a moment for
// each step: accepted, confirming, outcome. They are level triggered: what comes next is
// read off the Host.
type agents struct {
	client client.Client
	queue  workqueue.TypedInterface[client.ObjectKey]

	mu     sync.Mutex
	hosts  map[client.ObjectKey]*nfv1.Host
	fates  map[string]func(*nfv1.Host) fate
	failed error

	reports atomic.Int64
}

// startAgents starts agents that do as the fate of their namespace says, with as many
// reports at once as workers.
func startAgents(ctx context.Context, workers int) *agents {
	GinkgoHelper()
	c, err := env.ClientFor(gatewayConfig())
	Expect(err).NotTo(HaveOccurred())
	a := &agents{
		client: c, queue: workqueue.NewTyped[client.ObjectKey](),
		hosts: map[client.ObjectKey]*nfv1.Host{}, fates: map[string]func(*nfv1.Host) fate{},
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var done sync.WaitGroup
	follow(ctx, &done, &nfv1.HostList{}, a.observe)
	for range workers {
		done.Go(func() { a.work(ctx) })
	}
	DeferCleanup(func() {
		cancel()
		a.queue.ShutDown()
		done.Wait()
		Expect(a.failed).NotTo(HaveOccurred(), "a report of an agent")
	})
	return a
}

// gatewayConfig writes as the gateway does: as the agents' account, for the host that the
// path of the request names.
func gatewayConfig() *rest.Config {
	config := rest.CopyConfig(env.Config)
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(r *http.Request) (*http.Response, error) {
			r = r.Clone(r.Context())
			if at := strings.Split(r.URL.Path, "/"); len(at) >= 8 && at[4] == "namespaces" {
				r.Header.Set("Impersonate-User", testenv.AgentUser)
				r.Header.Set("Impersonate-Extra-"+nfv1.GroupName+"%2fhost", at[5]+"/"+at[7])
			}
			return next.RoundTrip(r)
		})
	})
	return config
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// script says what becomes of the assignments of a namespace from now on, those that are
// under way included.
func (a *agents) script(namespace string, f func(*nfv1.Host) fate) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.fates[namespace] = f
	for key := range a.hosts {
		if key.Namespace == namespace {
			a.queue.Add(key)
		}
	}
}

func always(f fate) func(*nfv1.Host) fate { return func(*nfv1.Host) fate { return f } }

func (a *agents) observe(e watch.Event) {
	h, ok := e.Object.(*nfv1.Host)
	if !ok {
		a.fail(fmt.Errorf("watch of the agents: %v", e.Object))
		return
	}
	key := client.ObjectKeyFromObject(h)
	a.mu.Lock()
	if e.Type == watch.Deleted {
		delete(a.hosts, key)
	} else {
		a.hosts[key] = h
	}
	a.mu.Unlock()
	a.queue.Add(key)
}

func (a *agents) work(ctx context.Context) {
	for {
		key, stop := a.queue.Get()
		if stop {
			return
		}
		a.step(ctx, key)
		a.queue.Done(key)
	}
}

func (a *agents) step(ctx context.Context, key client.ObjectKey) {
	a.mu.Lock()
	h, fateOf := a.hosts[key], a.fates[key.Namespace]
	a.mu.Unlock()
	if h == nil || fateOf == nil || h.Spec.Desired == nil {
		return
	}
	next := nextReport(h, fateOf(h))
	if next == nil {
		return
	}
	h = h.DeepCopy()
	switch err := ssa.Status(ctx, a.client, nfv1.FieldOwnerAgent, h, ssa.SameObject, next); {
	case ctx.Err() != nil, apierrors.IsNotFound(err), apierrors.IsConflict(err): // ended, or the Host was deleted
	case err != nil:
		a.fail(err)
	default:
		a.reports.Add(1)
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.hosts[key] != nil {
			a.hosts[key] = h // what it reported it knows before the watch says so
		}
	}
}

func (a *agents) fail(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.failed == nil {
		a.failed = err
	}
}

// nextReport is what the agent of a host has to say, or nil.
func nextReport(h *nfv1.Host, f fate) *nfv1.HostStatus {
	d, s := h.Spec.Desired, h.Status
	switch {
	case f == deaf:
		return nil
	case s.ObservedRevision < d.Revision && d.Intent == nfv1.IntentNone:
		return reportOf(h, nfv1.HostPhaseIdle, "")
	case s.ObservedRevision < d.Revision:
		return reportOf(h, nfv1.HostPhaseFetching, "")
	case f == stays || s.Phase == nfv1.HostPhaseIdle:
		return nil
	case s.Phase == nfv1.HostPhaseFetching:
		return reportOf(h, nfv1.HostPhaseConfirming, "")
	case f == rollsBack && d.Intent == nfv1.IntentDeploy:
		return reportOf(h, nfv1.HostPhaseIdle, nfv1.AttemptRolledBack)
	default:
		return reportOf(h, nfv1.HostPhaseIdle, nfv1.AttemptSucceeded)
	}
}

// reportOf is the whole status that an agent applies in a phase of its host's assignment,
// or about the outcome of it.
func reportOf(h *nfv1.Host, phase nfv1.HostPhase, outcome nfv1.AttemptOutcome) *nfv1.HostStatus {
	s := h.Status.DeepCopy()
	s.ObservedGeneration, s.Phase = h.Generation, phase
	if s.Running == nil {
		s.Running = &nfv1.SystemGeneration{StorePath: path("factory", h.Name)}
	}
	if d := h.Spec.Desired; d != nil {
		s.ObservedRevision = d.Revision
		if outcome != "" {
			s.Attempt = &nfv1.HostAttempt{
				Revision: d.Revision, StorePath: d.StorePath, Outcome: outcome, Reason: nfv1.ReasonCompleted, Message: "as the test says",
			}
			if d.Rollout != nil {
				s.Attempt.RolloutUID = d.Rollout.UID
			}
		}
		if outcome == nfv1.AttemptSucceeded {
			s.Running = &nfv1.SystemGeneration{StorePath: d.StorePath}
		}
		if outcome != "" && outcome != nfv1.AttemptSucceeded {
			s.Attempt.Reason = nfv1.ReasonHealthCheckFailed
		}
	}
	meta.SetStatusCondition(&s.Conditions, metav1.Condition{
		Type: nfv1.ConditionHealthy, Status: metav1.ConditionTrue, Reason: "ChecksPassed", ObservedGeneration: h.Generation,
	})
	meta.RemoveStatusCondition(&s.Conditions, nfv1.ConditionOnline) // not the agent's
	summarise(s, h)
	return s
}

// summarise sets Ready and what goes with it from the rest of the status.
func summarise(s *nfv1.HostStatus, h *nfv1.Host) {
	d := h.Spec.Desired
	asked := d != nil && d.Intent != nfv1.IntentNone
	ready, reason, beside := metav1.ConditionTrue, nfv1.ReasonNothingDesired, ""
	switch {
	case s.Phase != nfv1.HostPhaseIdle:
		ready, reason, beside = metav1.ConditionUnknown, nfv1.ReasonAttemptInProgress, nfv1.ConditionReconciling
	case asked && s.Attempt != nil && s.Attempt.Revision == d.Revision && s.Attempt.Outcome != nfv1.AttemptSucceeded:
		ready, reason, beside = metav1.ConditionFalse, s.Attempt.Reason, nfv1.ConditionStalled
	case meta.IsStatusConditionFalse(s.Conditions, nfv1.ConditionHealthy):
		ready, reason, beside = metav1.ConditionFalse, nfv1.ReasonUnhealthy, nfv1.ConditionStalled
	case asked && (s.Running == nil || s.Running.StorePath != d.StorePath || s.ObservedRevision != d.Revision):
		ready, reason, beside = metav1.ConditionUnknown, nfv1.ReasonAttemptInProgress, nfv1.ConditionReconciling
	case asked:
		reason = nfv1.ReasonUpToDate
	}
	for _, kind := range []string{nfv1.ConditionReconciling, nfv1.ConditionStalled} {
		if kind != beside {
			meta.RemoveStatusCondition(&s.Conditions, kind)
		}
	}
	set := func(kind string, status metav1.ConditionStatus) {
		meta.SetStatusCondition(&s.Conditions, metav1.Condition{
			Type: kind, Status: status, Reason: reason, ObservedGeneration: h.Generation,
			LastTransitionTime: metav1.NewTime(time.Now().Truncate(time.Second)),
		})
	}
	set(nfv1.ConditionReady, ready)
	if beside != "" {
		set(beside, metav1.ConditionTrue)
	}
}
