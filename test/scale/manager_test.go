// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

//go:build integration

package scale

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/ssa"
	"github.com/nixfleet/nixfleet/internal/testenv"
)

// BenchmarkManagerMemory runs the manager as a process of its own and reports what it
// keeps in memory: with an empty API server, which is the floor, and with hosts as they
// are after many releases. SCALE_HOSTS is how many; default: 10,000.
func BenchmarkManagerMemory(b *testing.B) {
	hosts := 10_000
	if text := os.Getenv("SCALE_HOSTS"); text != "" {
		var err error
		if hosts, err = strconv.Atoi(text); err != nil {
			b.Fatalf("SCALE_HOSTS: %v", err)
		}
	}
	env := testenv.Start(b)
	program := filepath.Join(b.TempDir(), "nixfleet-manager")
	if out, err := exec.Command("go", "build", "-trimpath", "-o", program, "../../cmd/manager").CombinedOutput(); err != nil {
		b.Fatalf("build the manager: %v\n%s", err, out)
	}
	kubeconfig := writeKubeconfig(b, env.Config)
	floor := residentMB(b, program, kubeconfig)
	size := fill(b, env, hosts)
	loaded := residentMB(b, program, kubeconfig)
	for b.Loop() { // measured above; a process is started once
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(floor, "MB-floor")
	b.ReportMetric(loaded, "MB")
	b.ReportMetric((loaded-floor)*1000/float64(hosts), "kB/host")
	b.ReportMetric(float64(size), "JSON-B/host")
}

func writeKubeconfig(b *testing.B, config *rest.Config) string {
	b.Helper()
	file := filepath.Join(b.TempDir(), "kubeconfig")
	err := clientcmd.WriteToFile(clientcmdapi.Config{
		Clusters: map[string]*clientcmdapi.Cluster{"c": {Server: config.Host, CertificateAuthorityData: config.CAData}},
		AuthInfos: map[string]*clientcmdapi.AuthInfo{"u": {
			ClientCertificateData: config.CertData, ClientKeyData: config.KeyData, Token: config.BearerToken,
		}},
		Contexts:       map[string]*clientcmdapi.Context{"x": {Cluster: "c", AuthInfo: "u"}},
		CurrentContext: "x",
	}, file)
	if err != nil {
		b.Fatal(err)
	}
	return file
}

// residentMB runs the manager until it is ready and has been quiet for a while, and
// answers its resident memory in MB.
func residentMB(b *testing.B, program, kubeconfig string) float64 {
	b.Helper()
	probe := freeAddress(b)
	log, err := os.Create(filepath.Join(b.TempDir(), "manager.log"))
	if err != nil {
		b.Fatal(err)
	}
	defer log.Close() //nolint:errcheck // what it says is read from the file
	command := exec.Command(program, "--kubeconfig", kubeconfig, "--leader-elect=false", "--gateway-bind-address=0",
		"--metrics-bind-address=0", "--health-probe-bind-address="+probe)
	command.Stdout, command.Stderr = log, log
	if err := command.Start(); err != nil {
		b.Fatal(err)
	}
	defer func() {
		_ = command.Process.Signal(syscall.SIGTERM)
		_ = command.Wait()
	}()
	ready := func(ctx context.Context) (bool, error) {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+probe+"/readyz", http.NoBody)
		if err != nil {
			return false, err
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return false, nil //nolint:nilerr // not yet
		}
		return response.StatusCode == http.StatusOK, response.Body.Close()
	}
	if err := wait.PollUntilContextTimeout(b.Context(), time.Second, 2*time.Minute, true, ready); err != nil {
		text, _ := os.ReadFile(log.Name())
		b.Fatalf("the manager is not ready: %v\n%s", err, text)
	}
	return whenSteady(b, command.Process.Pid)
}

// whenSteady waits until the resident memory has hardly changed for ten seconds, at
// most for three minutes.
func whenSteady(b *testing.B, pid int) float64 {
	b.Helper()
	var history []float64
	steady := func(context.Context) (bool, error) {
		mb, err := residentOf(pid)
		history = append(history, mb)
		if n := len(history); err == nil && n > 10 {
			old := history[n-11]
			return mb > old*0.99 && mb < old*1.01, nil
		}
		return false, err
	}
	if err := wait.PollUntilContextTimeout(b.Context(), time.Second, 3*time.Minute, false, steady); err != nil {
		b.Fatalf("memory is not steady: %v: %v", err, history)
	}
	return history[len(history)-1]
}

func residentOf(pid int) (float64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if text, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(text), " kB"), 64)
			return kb / 1000, err
		}
	}
	return 0, fmt.Errorf("process %d has no VmRSS", pid)
}

func freeAddress(b *testing.B) string {
	b.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer listener.Close() //nolint:errcheck // nothing was written
	return listener.Addr().String()
}

// fill makes hosts, and answers the size of one as JSON, managed fields left out.
func fill(b *testing.B, env *testenv.Env, hosts int) int {
	b.Helper()
	manager, err := env.ClientFor(env.ManagerConfig()) // which alone may write spec.desired
	if err != nil {
		b.Fatal(err)
	}
	namespace := env.Namespace(b.Context())
	var group errgroup.Group
	group.SetLimit(32)
	for i := range hosts {
		group.Go(func() error { return addHost(b.Context(), env.Client, manager, namespace, fmt.Sprintf("host-%05d", i)) })
	}
	if err := group.Wait(); err != nil {
		b.Fatal(err)
	}
	return sizeOf(b, env, namespace, "host-00000")
}

func storePath(name string, n int) nfv1.StorePath {
	return nfv1.StorePath(fmt.Sprintf("/nix/store/%032d-nixos-system-%s-26.05.%d", n, name, n))
}

func addHost(ctx context.Context, admin, manager client.Client, namespace, name string) error {
	h := &nfv1.Host{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{"role": "web", "ring": "prod", "site": "fra1"}},
		Spec:       nfv1.HostSpec{Platform: nfv1.PlatformX8664Linux},
	}
	if err := admin.Create(ctx, h); err != nil {
		return err
	}
	desired := nfv1.Desired{
		Revision: 12, Intent: nfv1.IntentDeploy, StorePath: storePath(name, 12), PreviousStorePath: storePath(name, 11),
		Caches: []nfv1.CacheURL{"https://cache.example.org"}, PreviousCaches: []nfv1.CacheURL{"https://cache.example.org"},
		Release: &nfv1.ObjectReference{Name: "26.05-12", UID: "0a4f6d5e-3d0b-4a39-9e0c-5f0c3d8d7a11"},
		Rollout: &nfv1.ObjectReference{Name: "to-26.05-12", UID: "7c4f6d5e-3d0b-4a39-9e0c-5f0c3d8d7a12"},
		Attempt: 1, Wave: "rest", AssignedTime: metav1.Now(),
	}
	if err := ssa.SpecField(ctx, manager, nfv1.FieldOwnerRollout, h, ssa.SameVersion, "desired", &desired); err != nil {
		return err
	}
	return ssa.Status(ctx, admin, nfv1.FieldOwnerAgent, h, ssa.SameObject, hostStatus(h))
}

// hostStatus is that of a host that is well and has seen ten releases.
func hostStatus(h *nfv1.Host) *nfv1.HostStatus {
	attempt := func(n int64) nfv1.HostAttempt {
		return nfv1.HostAttempt{
			Revision: n, StorePath: storePath(h.Name, int(n)), RolloutUID: "7c4f6d5e-3d0b-4a39-9e0c-5f0c3d8d7a12",
			Outcome: nfv1.AttemptSucceeded, Reason: nfv1.ReasonCompleted, Message: "system 26.05 runs and is committed",
			StartedAt: metav1.Now(), FinishedAt: metav1.Now(),
		}
	}
	last := attempt(12)
	s := &nfv1.HostStatus{
		ObservedGeneration: h.Generation, ObservedRevision: 12, Phase: nfv1.HostPhaseIdle, Attempt: &last,
		Running: &nfv1.SystemGeneration{StorePath: last.StorePath, Generation: 12, Label: "26.05.20261120"},
	}
	s.Booted, s.Profile = s.Running, s.Running
	for n := range int64(10) {
		s.History = append(s.History, attempt(12-n))
	}
	for _, kind := range []string{nfv1.ConditionReady, nfv1.ConditionHealthy, nfv1.ConditionUpToDate} {
		s.Conditions = append(s.Conditions, metav1.Condition{
			Type: kind, Status: metav1.ConditionTrue, Reason: nfv1.ReasonUpToDate,
			Message: "the host runs what it was asked to run", LastTransitionTime: metav1.Now(), ObservedGeneration: h.Generation,
		})
	}
	return s
}

func sizeOf(b *testing.B, env *testenv.Env, namespace, name string) int {
	b.Helper()
	var h nfv1.Host
	if err := env.Client.Get(b.Context(), client.ObjectKey{Namespace: namespace, Name: name}, &h); err != nil {
		b.Fatal(err)
	}
	h.ManagedFields = nil
	text, err := json.Marshal(h)
	if err != nil {
		b.Fatal(err)
	}
	return len(text)
}
