// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

//go:build integration

package rollout

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

// git is a repository with the Hosts and the Rollout of a namespace, and a tool that
// applies it again and again.
type git struct {
	owner  string
	force  bool
	mu     sync.Mutex
	labels map[string]any
	rounds atomic.Int32
}

func (g *git) set(labels map[string]any) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.labels = labels
}

// apply applies everything once, as kubectl apply --server-side does.
func (g *git) apply(ctx context.Context, namespace string) error {
	g.mu.Lock()
	labels := g.labels
	g.mu.Unlock()
	manifests := []*unstructured.Unstructured{manifest(namespace, "Rollout", "to-r1", nil, map[string]any{
		"release": "r1", "selector": map[string]any{},
		"strategy": map[string]any{"type": "Staged", "waves": []any{
			map[string]any{"name": "canary", "size": int64(1)}, map[string]any{"name": "rest", "maxUnavailable": int64(2)},
		}},
	})}
	for _, host := range fourHosts {
		manifests = append(manifests, manifest(namespace, "Host", host, labels, map[string]any{"platform": string(nfv1.PlatformX8664Linux)}))
	}
	options := []client.ApplyOption{client.FieldOwner(g.owner)}
	if g.force {
		options = append(options, client.ForceOwnership)
	}
	for _, m := range manifests {
		if err := env.Client.Apply(ctx, client.ApplyConfigurationFromUnstructured(m), options...); err != nil {
			return fmt.Errorf("%s applies %s %s: %w", g.owner, m.GetKind(), m.GetName(), err)
		}
	}
	g.rounds.Add(1)
	return nil
}

func manifest(namespace, kind, name string, labels, spec map[string]any) *unstructured.Unstructured {
	meta := map[string]any{"namespace": namespace, "name": name}
	if labels != nil {
		meta["labels"] = labels
	}
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": nfv1.GroupVersion.String(), "kind": kind, "metadata": meta, "spec": spec,
	}}
}

// run applies until ctx ends.
func (g *git) run(ctx context.Context, namespace string) error {
	for ctx.Err() == nil {
		if err := g.apply(ctx, namespace); err != nil && ctx.Err() == nil {
			return err
		}
	}
	return nil
}

// more waits until everything was applied again.
func (g *git) more(ctx context.Context) {
	GinkgoHelper()
	Eventually(ctx, g.rounds.Load).WithTimeout(soon).Should(BeNumerically(">", g.rounds.Load()+2))
}

var _ = Describe("beside a tool that applies from Git", func() {
	DescribeTable("moves hosts, and keeps what Git does not say", func(ctx SpecContext, owner string, force bool) {
		hands, watched := startAgents(ctx, 4), startRecorder(ctx)
		startManager(ctx, nil)
		f := newFleet(ctx)
		g := &git{owner: owner, force: force}
		g.set(map[string]any{"role": "web", "old": "yes"})
		Expect(g.apply(ctx, f.namespace)).To(Succeed())
		for _, host := range fourHosts {
			f.setOnline(ctx, host, metav1.ConditionTrue)
			f.report(ctx, host, func(*nfv1.HostStatus, *nfv1.Host) {})
		}
		gitEnds, stop := context.WithCancel(ctx)
		applied := make(chan error, 1)
		go func() { applied <- g.run(gitEnds, f.namespace) }()
		defer stop()

		hands.script(f.namespace, inWave("canary", succeeds, stays))
		f.addUnverifiedRelease(ctx, "r1", fourHosts...)
		Eventually(ctx, f.started(ctx)).WithTimeout(soon).Should(HaveLen(2), "the second wave is under way")

		f.setState(ctx, "to-r1", nfv1.RolloutStatePaused)
		Expect(env.Client.Patch(ctx, f.rollout(ctx, "to-r1"), client.RawPatch("application/merge-patch+json", []byte(`{"spec":{"attempt":2}}`)))).To(Succeed())
		f.waitPhase(ctx, "to-r1", nfv1.RolloutPhasePaused)
		g.set(map[string]any{"role": "web"})
		g.more(ctx)
		ro := f.rollout(ctx, "to-r1")
		Expect([]any{ro.Spec.State, ro.Spec.Attempt}).To(Equal([]any{nfv1.RolloutStatePaused, int32(2)}))

		f.setState(ctx, "to-r1", nfv1.RolloutStateRunning)
		hands.script(f.namespace, always(succeeds))
		f.waitPhase(ctx, "to-r1", nfv1.RolloutPhaseSucceeded)
		g.more(ctx)
		stop()
		Expect(<-applied).To(Succeed())

		h := watched.of(ctx, f.namespace)
		Expect(h.faults()).To(BeEmpty())
		for _, name := range fourHosts {
			host := f.host(ctx, name)
			Expect(host.Labels).To(Equal(map[string]string{"role": "web"}), "what Git does not have any more is gone")
			Expect(h.assignments()[name]).To(HaveLen(1), name)
			Expect(ownersOfDesired(host)).To(Equal([]string{nfv1.FieldOwnerRollout}))
		}
		Expect(h.hosts).To(HaveLen(len(fourHosts)*8), "created, online, first report, labels, assignment and three reports: nobody fights")
	},
		Entry("Argo CD", "argocd-controller", true),
		Entry("Flux", "kustomize-controller", true),
		Entry("without force", "kubectl", false),
	)

	It("keeps the assignment when kubectl applies and replaces on the client's side", func(ctx SpecContext) {
		kubectl := newKubectl(ctx)
		f := newFleet(ctx)
		host := func(labels map[string]any) *unstructured.Unstructured {
			return manifest(f.namespace, "Host", "a", labels, map[string]any{"platform": string(nfv1.PlatformX8664Linux)})
		}
		Expect(kubectl(host(map[string]any{"role": "web", "old": "yes"}), "apply")).Error().NotTo(HaveOccurred())
		f.setOnline(ctx, "a", metav1.ConditionTrue)
		f.report(ctx, "a", func(*nfv1.HostStatus, *nfv1.Host) {})
		f.addRelease(ctx, "r1", "a")
		f.addRollout(ctx, "to-r1", "r1", nil)
		f.reconcile(ctx, "to-r1")
		want := f.host(ctx, "a").Spec.Desired
		Expect(want).NotTo(BeNil())

		for _, args := range [][]string{
			{"apply"}, {"apply", "--server-side", "--force-conflicts"}, {"apply", "--server-side", "--force-conflicts"},
		} {
			Expect(kubectl(host(map[string]any{"role": "web"}), args...)).Error().NotTo(HaveOccurred(), "%v", args)
			Expect(f.host(ctx, "a").Spec.Desired).To(Equal(want), "%v", args)
			Expect(f.host(ctx, "a").Labels).To(Equal(map[string]string{"role": "web"}), "%v", args)
		}
		out, err := kubectl(host(nil), "replace")
		Expect(err).To(HaveOccurred(), "a replace would drop the assignment")
		Expect(out).To(ContainSubstring("desired"))
		Expect(f.host(ctx, "a").Spec.Desired).To(Equal(want))
	})
})

// ownersOfDesired are the field managers that own something of spec.desired.
func ownersOfDesired(h *nfv1.Host) []string {
	var out []string
	for _, m := range h.ManagedFields {
		if m.Subresource == "" && bytes.Contains(m.FieldsV1.GetRawBytes(), []byte(`"f:desired"`)) {
			out = append(out, m.Manager)
		}
	}
	return out
}

// newKubectl runs kubectl with a manifest as its input. The spec is skipped on machines
// that have none.
func newKubectl(ctx context.Context) func(*unstructured.Unstructured, ...string) (string, error) {
	GinkgoHelper()
	program := filepath.Join("..", "..", "bin", "kubectl")
	if _, err := os.Stat(program); err != nil {
		if program, err = exec.LookPath("kubectl"); err != nil {
			Skip("there is no kubectl here: make kubectl")
		}
	}
	config := clientcmdapi.NewConfig()
	config.Clusters["c"] = &clientcmdapi.Cluster{Server: env.Config.Host, CertificateAuthorityData: env.Config.CAData}
	config.AuthInfos["u"] = &clientcmdapi.AuthInfo{ClientCertificateData: env.Config.CertData, ClientKeyData: env.Config.KeyData}
	config.Contexts["x"] = &clientcmdapi.Context{Cluster: "c", AuthInfo: "u"}
	config.CurrentContext = "x"
	kubeconfig := filepath.Join(GinkgoTB().TempDir(), "kubeconfig")
	Expect(clientcmd.WriteToFile(*config, kubeconfig)).To(Succeed())
	return func(manifest *unstructured.Unstructured, args ...string) (string, error) {
		data, err := manifest.MarshalJSON()
		if err != nil {
			return "", err
		}
		cmd := exec.CommandContext(ctx, program, append(args, "-f", "-")...) //nolint:gosec // arguments of this file
		cmd.Env = append(os.Environ(), "KUBECONFIG="+kubeconfig, "HOME="+filepath.Dir(kubeconfig))
		cmd.Stdin = bytes.NewReader(data)
		out, err := cmd.CombinedOutput()
		if err != nil {
			return string(out), fmt.Errorf("kubectl %v: %w: %s", args, err, out)
		}
		return string(out), nil
	}
}
