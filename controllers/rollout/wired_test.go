// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

//go:build integration

package rollout

import (
	"context"
	"sync"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/controllers/release"
)

// soon bounds how long a spec waits for what has to happen, on a machine that is busy
// with other tests.
const soon = 90 * time.Second

// poll is how often a spec looks: seldom enough that those of one that runs many rollouts
// at once are not what the API server is busy with.
const poll = 200 * time.Millisecond

// atOnce is how many rollouts of one spec run at the same time.
const atOnce = 16

// running is a manager with the controllers of rollouts and releases.
type running struct {
	stop context.CancelFunc
	done chan struct{}
	err  error

	elected <-chan struct{}
}

// startManager runs a manager with the rights and the cache of the product's. A spec
// that needs another one changes its configuration or options.
func startManager(ctx context.Context, adapt func(*rest.Config, *ctrl.Options)) *running {
	GinkgoHelper()
	cfg := env.ManagerConfig()
	options := ctrl.Options{
		Scheme:                        env.Scheme,
		Logger:                        GinkgoLogr,
		Cache:                         cache.Options{DefaultTransform: cache.TransformStripManagedFields()},
		Client:                        client.Options{Cache: &client.CacheOptions{EnableReadYourWritesConsistency: ptr.To(true)}},
		Metrics:                       metricsserver.Options{BindAddress: "0"},
		HealthProbeBindAddress:        "0",
		LeaderElectionReleaseOnCancel: true,
		Controller:                    config.Controller{SkipNameValidation: ptr.To(true)},
	}
	if adapt != nil {
		adapt(cfg, &options)
	}
	mgr, err := ctrl.NewManager(cfg, options)
	Expect(err).NotTo(HaveOccurred())
	Expect(release.SetupWithManager(mgr, release.Options{})).To(Succeed())
	Expect(SetupWithManager(mgr, Options{OfflineWindow: 3 * time.Minute, Concurrency: 4})).To(Succeed())
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	r := &running{done: make(chan struct{}), elected: mgr.Elected()}
	r.stop = sync.OnceFunc(func() {
		cancel()
		<-r.done
	})
	go func() {
		defer close(r.done)
		r.err = mgr.Start(ctx)
	}()
	DeferCleanup(r.stop)
	return r
}

// skipVerification makes releases that the real release controller lets pass: there is
// no binary cache here.
func (f *fleet) addUnverifiedRelease(ctx context.Context, name string, hosts ...string) *nfv1.Release {
	GinkgoHelper()
	rel := releaseFor(f.namespace, name, hosts...)
	rel.Spec.Verification = nfv1.VerificationSkip
	Expect(env.Client.Create(ctx, rel)).To(Succeed())
	return rel
}

// phaseOf is the phase of a rollout, to be polled.
func (f *fleet) phaseOf(ctx context.Context, name string) func() nfv1.RolloutPhase {
	return func() nfv1.RolloutPhase {
		var ro nfv1.Rollout
		if err := env.Client.Get(ctx, f.key(name), &ro); err != nil {
			return nfv1.RolloutPhase(err.Error())
		}
		return ro.Status.Phase
	}
}

// waitPhase waits until a rollout is in a phase.
func (f *fleet) waitPhase(ctx context.Context, name string, phase nfv1.RolloutPhase) {
	GinkgoHelper()
	Eventually(ctx, f.phaseOf(ctx, name)).WithTimeout(soon).Should(Equal(phase))
}

// succeeded counts the hosts of the namespace that reported success.
func (f *fleet) succeeded(ctx context.Context) func() int {
	return func() int {
		var list nfv1.HostList
		Expect(env.Client.List(ctx, &list, client.InNamespace(f.namespace))).To(Succeed())
		n := 0
		for _, h := range list.Items {
			if h.Status.Attempt != nil && h.Status.Attempt.Outcome == nfv1.AttemptSucceeded {
				n++
			}
		}
		return n
	}
}

// finalizers are those of an object, to be polled; nil also if it is gone.
func finalizers(ctx context.Context, o client.Object) func() []string {
	return func() []string {
		switch err := env.Client.Get(ctx, client.ObjectKeyFromObject(o), o); {
		case apierrors.IsNotFound(err):
			return nil
		case err != nil:
			return []string{err.Error()}
		}
		return o.GetFinalizers()
	}
}

// inParallel runs f for each item, some at the same time, and returns when all are done.
func inParallel[T any](items []T, f func(T)) {
	slots := make(chan struct{}, atOnce)
	var runs sync.WaitGroup
	for _, item := range items {
		slots <- struct{}{}
		runs.Go(func() {
			defer GinkgoRecover()
			defer func() { <-slots }()
			f(item)
		})
	}
	runs.Wait()
}
