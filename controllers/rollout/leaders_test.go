// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

//go:build integration

package rollout

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/testenv"
)

// fourAtATime moves two hosts, then the others four at a time.
func fourAtATime(s *nfv1.RolloutSpec) {
	s.Strategy = nfv1.RolloutStrategy{Type: nfv1.StrategyStaged, Waves: []nfv1.RolloutWave{
		{Name: "canary", Size: ptr.To(intstr.FromInt32(2))},
		{Name: "rest", MaxUnavailable: ptr.To(intstr.FromInt32(4))},
	}}
}

// replica is a manager whose writes are counted.
type replica struct {
	*running
	assigned, refused atomic.Int32
	// cutOff stops what it says to its Lease.
	cutOff atomic.Bool
}

// count is for rest.Config.Wrap.
func (r *replica) count(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(req *http.Request) (*http.Response, error) {
		if r.cutOff.Load() && strings.Contains(req.URL.Path, "/leases/") {
			return nil, errors.New("cut off, as the test says")
		}
		_, what := writeOf(req)
		response, err := next.RoundTrip(req)
		if err == nil && what == "hosts" {
			switch response.StatusCode {
			case http.StatusOK:
				r.assigned.Add(1)
			case http.StatusConflict:
				r.refused.Add(1)
			}
		}
		return response, err
	})
}

func startReplica(ctx context.Context, adapt func(*ctrl.Options)) *replica {
	GinkgoHelper()
	r := &replica{}
	r.running = startManager(ctx, func(c *rest.Config, o *ctrl.Options) {
		c.Wrap(r.count)
		if adapt != nil {
			adapt(o)
		}
	})
	return r
}

// firstSucceed lets n hosts succeed, and those that come later stay where they are.
func firstSucceed(n int) func(*nfv1.Host) fate {
	var mu sync.Mutex
	lucky := map[string]bool{}
	return func(h *nfv1.Host) fate {
		mu.Lock()
		defer mu.Unlock()
		if len(lucky) < n {
			lucky[h.Name] = true
		}
		if lucky[h.Name] {
			return succeeds
		}
		return stays
	}
}

var _ = Describe("when the leader changes in the middle of a wave", func() {
	const hosts = 24
	var (
		f       *fleet
		watched *recorder
		hands   *agents
	)

	BeforeEach(func(ctx SpecContext) {
		names := make([]string, hosts)
		for i := range names {
			names[i] = fmt.Sprintf("host-%02d", i)
		}
		f, watched = newFleet(ctx, names...), startRecorder(ctx)
		hands = startAgents(ctx, 8)
		hands.script(f.namespace, always(succeeds))
		f.addUnverifiedRelease(ctx, "r1", names...)
		f.addRollout(ctx, "to-r1", "r1", fourAtATime)
	})

	// ends well: nobody was assigned twice, at no moment were too many hosts in flight.
	expectWell := func(ctx context.Context) {
		GinkgoHelper()
		f.waitPhase(ctx, "to-r1", nfv1.RolloutPhaseSucceeded)
		h := watched.of(ctx, f.namespace)
		Expect(h.faults()).To(BeEmpty())
		for host, all := range h.assignments() {
			Expect(all).To(HaveLen(1), host)
		}
		Expect(h.assignments()).To(HaveLen(hosts))
	}
	// A write whose answer was cut off when its replica ended may be stored all the same,
	// so there can be fewer than hosts that a replica knows of, never more.
	expectNoMoreWrites := func(replicas ...*replica) {
		GinkgoHelper()
		sum := int32(0)
		for _, r := range replicas {
			sum += r.assigned.Load()
		}
		Expect(sum).To(BeNumerically("<=", hosts))
	}
	waitSucceeded := func(ctx context.Context, n int) {
		GinkgoHelper()
		Eventually(ctx, f.succeeded(ctx)).WithTimeout(soon).WithPolling(poll / 10).Should(BeNumerically(">=", n))
	}

	It("lets two that both believe to lead assign nobody twice", func(ctx SpecContext) {
		hands.script(f.namespace, firstSucceed(16)) // so that there is something left to do
		first := startReplica(ctx, nil)
		waitSucceeded(ctx, 5)
		second := startReplica(ctx, nil)
		waitSucceeded(ctx, 16)
		first.stop()
		hands.script(f.namespace, always(succeeds))
		expectWell(ctx)
		AddReportEntry("writes to hosts", fmt.Sprintf("first %d stored, %d refused; second %d stored, %d refused",
			first.assigned.Load(), first.refused.Load(), second.assigned.Load(), second.refused.Load()))
		expectNoMoreWrites(first, second)
		Expect(second.assigned.Load()).To(BeNumerically(">", 0))
	})

	DescribeTable("hands over to the next one", func(ctx SpecContext, release bool, leave func(*replica)) {
		elected := func(o *ctrl.Options) {
			o.LeaderElection, o.LeaderElectionID, o.LeaderElectionNamespace = true, f.namespace, testenv.SystemNamespace
			o.LeaseDuration, o.RenewDeadline, o.RetryPeriod = ptr.To(3*time.Second), ptr.To(2*time.Second), ptr.To(250*time.Millisecond)
			o.LeaderElectionReleaseOnCancel = release
		}
		first := startReplica(ctx, elected)
		waitSucceeded(ctx, 3)
		second := startReplica(ctx, elected)
		leave(first)
		if first.cutOff.Load() {
			waitSucceeded(ctx, 9) // it does not know that it does not lead any more
		}
		hands.script(f.namespace, always(stays)) // so that there is something left to do
		Eventually(ctx, second.elected).WithTimeout(soon).Should(BeClosed())
		hands.script(f.namespace, always(succeeds))
		expectWell(ctx)
		Expect(first.assigned.Load()).To(BeNumerically(">", 0))
		Expect(second.assigned.Load()).To(BeNumerically(">", 0))
		expectNoMoreWrites(first, second)
	},
		Entry("at once, when it ends and lets its Lease go", true, func(r *replica) { r.stop() }),
		Entry("when its Lease is over, when it ends and keeps it", false, func(r *replica) { r.stop() }),
		Entry("when its Lease is over, when it cannot renew it but goes on working", true, func(r *replica) { r.cutOff.Store(true) }),
	)
})
