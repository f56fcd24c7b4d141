// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

//go:build integration

package release

import (
	"context"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/nix"
	"github.com/nixfleet/nixfleet/internal/nix/binarycache"
	"github.com/nixfleet/nixfleet/internal/nix/nixtest"
	"github.com/nixfleet/nixfleet/internal/ssa"
)

// The controller in a manager, with the manager's rights, against binary caches that Nix
// filled and that are served over HTTP.
var _ = Describe("In a manager", Ordered, func() {
	var (
		world     *nixtest.World
		key       nixtest.Key
		namespace string
		systems   [2]nix.StorePath
	)

	BeforeAll(func() {
		world = nixtest.New(GinkgoTB())
		key = world.Key("fleet-1")
		systems = [2]nix.StorePath{
			world.BuildSystem(nixtest.Spec{Host: "web-01"}), world.BuildSystem(nixtest.Spec{Host: "db-01", Ballast: 5000}),
		}
		namespace = env.Namespace(context.Background())
		startManager()
	})

	create := func(ctx context.Context, name string, url string, hosts map[string]nfv1.StorePath) *nfv1.Release {
		GinkgoHelper()
		rel := &nfv1.Release{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
			Spec: nfv1.ReleaseSpec{
				Caches: []nfv1.BinaryCache{{URL: nfv1.CacheURL(url), PublicKeys: []nfv1.NixPublicKey{nfv1.NixPublicKey(key.Public)}}},
				Hosts:  hosts,
			},
		}
		Expect(env.Client.Create(ctx, rel)).To(Succeed())
		return rel
	}
	verdict := func(ctx context.Context, rel *nfv1.Release) func() string {
		return func() string {
			if err := env.Client.Get(ctx, client.ObjectKeyFromObject(rel), rel); err != nil {
				return err.Error()
			}
			c := meta.FindStatusCondition(rel.Status.Conditions, nfv1.ConditionVerified)
			if c == nil {
				return "none"
			}
			return string(c.Status) + " " + c.Reason
		}
	}
	both := func() map[string]nfv1.StorePath {
		return map[string]nfv1.StorePath{"web-01": nfv1.StorePath(systems[0]), "db-01": nfv1.StorePath(systems[1])}
	}

	It("verifies what is whole and signed", func(ctx SpecContext) {
		cache := world.NewCache()
		cache.PushSigned(key, systems[0], systems[1])
		rel := create(ctx, "good", cache.Serve(), both())
		Eventually(ctx, verdict(ctx, rel)).WithTimeout(wait).Should(Equal("True Verified"))
		paths := len(world.Closure(systems[0], systems[1]))
		Expect(rel.Status.Closures).To(HaveValue(Equal(nfv1.ClosureCounts{Hosts: 2, Toplevels: 2, Verified: 2, Paths: int64(paths)})))
		Expect(rel.Status.UnpackedBytes).To(BeNumerically(">", 5000))
		Expect(rel.Status.DownloadBytes).To(And(BeNumerically(">", 0), BeNumerically("<", rel.Status.UnpackedBytes)))
	})

	It("waits for a cache that is down, and takes the verdict when it is back", func(ctx SpecContext) {
		cache := world.NewCache()
		cache.PushSigned(key, systems[0], systems[1])
		url := cache.Serve()
		cache.Stop()
		rel := create(ctx, "outage", url, both())
		Eventually(ctx, verdict(ctx, rel)).WithTimeout(wait).Should(Equal("Unknown CacheUnreachable"))
		Expect(message(rel.Status, nfv1.ConditionReady)).To(ContainSubstring(url + ": the cache could not be asked: connection refused"))
		version := rel.ResourceVersion
		Consistently(ctx, func() string { verdict(ctx, rel)(); return rel.ResourceVersion }).
			WithTimeout(quiet).Should(Equal(version), "each failed try writes the same status, so none")
		cache.Serve()
		Eventually(ctx, verdict(ctx, rel)).WithTimeout(wait).Should(Equal("True Verified"))
	})

	It("refuses what is not signed, content-addressed systems too", func(ctx SpecContext) {
		unsigned := world.NewCache()
		unsigned.PushUnsigned(systems[0])
		rel := create(ctx, "unsigned", unsigned.Serve(), map[string]nfv1.StorePath{"web-01": nfv1.StorePath(systems[0])})
		Eventually(ctx, verdict(ctx, rel)).WithTimeout(wait).Should(Equal("False UntrustedSignature"))
		Expect(rel.Status.Offenders).To(ContainElement(And(
			HaveField("StorePath", BeEquivalentTo(systems[0])), HaveField("Host", BeEquivalentTo("web-01")), HaveField("Message", ContainSubstring("not signed")),
		)))

		addressed := world.NewCache()
		copied := addressed.PushContentAddressed(systems[0])
		rel = create(ctx, "content-addressed", addressed.Serve(), map[string]nfv1.StorePath{"web-01": nfv1.StorePath(copied)})
		Eventually(ctx, verdict(ctx, rel)).WithTimeout(wait).Should(Equal("False UntrustedSignature"))
		Expect(rel.Status.Offenders).To(HaveExactElements(And(
			HaveField("StorePath", BeEquivalentTo(copied)), HaveField("Message", ContainSubstring("a system has to be signed")),
		)), "the parts of the system are proven by their names")
	})

	It("finds what was uploaded later, when a rollout asks", func(ctx SpecContext) {
		cache := world.NewCache()
		cache.PushSigned(key, systems[0], systems[1])
		closure := world.Closure(systems[1])
		missing := closure[0]
		narinfo := cache.Narinfo(missing)
		cache.Remove(missing)
		rel := create(ctx, "incomplete", cache.Serve(), both())
		Eventually(ctx, verdict(ctx, rel)).WithTimeout(wait).Should(Equal("False MissingPaths"))
		Expect(rel.Status.Offenders[0].StorePath).To(BeEquivalentTo(missing))
		cache.Restore(missing, narinfo)
		first := rel.Status.VerifiedAt
		// A rollout that is made in the second of the check asks for what is known already.
		Eventually(ctx, time.Now).WithTimeout(wait).Should(BeTemporally(">=", first.Add(time.Second)))
		ro := &nfv1.Rollout{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "asks"},
			Spec:       nfv1.RolloutSpec{Release: rel.Name, Selector: &nfv1.HostSelector{}},
		}
		Expect(env.Client.Create(ctx, ro)).To(Succeed())
		Eventually(ctx, verdict(ctx, rel)).WithTimeout(wait).Should(Equal("True Verified"))
	})

	It("lets a deleted release go when its rollout has ended", func(ctx SpecContext) {
		rel := create(ctx, "used", "http://127.0.0.1:1", both())
		ro := &nfv1.Rollout{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "user"},
			Spec:       nfv1.RolloutSpec{Release: rel.Name, Selector: &nfv1.HostSelector{}},
		}
		Expect(env.Client.Create(ctx, ro)).To(Succeed())
		status := nfv1.RolloutStatus{Phase: nfv1.RolloutPhaseProgressing, ReleaseUID: rel.UID, ObservedGeneration: 1}
		Expect(ssa.Status(ctx, asManager, nfv1.FieldOwnerRollout, ro, ssa.SameObject, &status)).To(Succeed())
		Expect(ssa.Finalizers(ctx, asManager, nfv1.FieldOwnerRollout, rel.DeepCopy(), ssa.SameObject, nfv1.FinalizerInUse)).To(Succeed())
		Expect(env.Client.Delete(ctx, rel)).To(Succeed())
		Eventually(ctx, func() string { verdict(ctx, rel)(); return message(rel.Status, nfv1.ConditionInUse) }).
			WithTimeout(wait).Should(ContainSubstring("deletion waits for unfinished rollouts: user"))
		status.Phase = nfv1.RolloutPhaseCancelled
		Expect(ssa.Status(ctx, asManager, nfv1.FieldOwnerRollout, ro, ssa.SameObject, &status)).To(Succeed())
		Eventually(ctx, func() bool {
			return apierrors.IsNotFound(env.Client.Get(ctx, client.ObjectKeyFromObject(rel), rel))
		}).WithTimeout(wait).Should(BeTrue())
	})
})

const (
	wait  = 30 * time.Second
	quiet = time.Second
)

func startManager() {
	GinkgoHelper()
	mgr, err := ctrl.NewManager(env.ManagerConfig(), ctrl.Options{
		Scheme: env.Scheme, Metrics: metricsserver.Options{BindAddress: "0"}, Controller: config.Controller{SkipNameValidation: new(true)},
	})
	Expect(err).NotTo(HaveOccurred())
	Expect(SetupWithManager(mgr, Options{
		Pace:     Pace{FirstRetry: 50 * time.Millisecond, LastRetry: 200 * time.Millisecond, Recheck: time.Hour, MaxAge: time.Minute},
		Verifier: binarycache.NewClient(binarycache.WithBackoff(func(int) time.Duration { return time.Millisecond })),
	})).To(Succeed())
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- mgr.Start(ctx) }()
	DeferCleanup(func() {
		cancel()
		Eventually(ended).WithTimeout(wait).Should(Receive(BeNil()))
	})
}
