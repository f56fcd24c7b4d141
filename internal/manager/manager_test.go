// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

//go:build integration

package manager

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/gateway"
	"github.com/nixfleet/nixfleet/internal/identity"
	"github.com/nixfleet/nixfleet/internal/testenv"
)

// eventually bounds how long a test waits for something that has to happen. A new
// leader waits for the Lease of the one before it, up to 15 s.
const eventually = 60 * time.Second

var env *testenv.Env

func TestMain(m *testing.M) {
	os.Exit(testenv.Run(m, func(e *testenv.Env) { env = e }))
}

func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	deadline := time.NewTimer(eventually)
	defer deadline.Stop()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for !done() {
		select {
		case <-deadline.C:
			t.Fatalf("waited %s for %s", eventually, what)
		case <-ticker.C:
		}
	}
}

// replica is a manager that runs with the rights of the manager's service account.
type replica struct {
	gateway string
	probes  string
	roots   *x509.CertPool
	stop    func()
}

func freePort(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close() //nolint:errcheck // It was only to find the port.
	return listener.Addr().String()
}

func startReplica(t *testing.T) *replica {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &replica{gateway: "https://" + listener.Addr().String(), probes: freePort(t)}
	options := NewOptions()
	options.MetricsBindAddress, options.HealthProbeBindAddress = "0", r.probes
	options.GatewayListener = listener
	options.GatewayCertDir, r.roots = serverCertificate(t)
	mgr, err := New(env.ManagerConfig(), options)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := mgr.Start(ctx); err != nil {
			t.Errorf("Start returned %v", err)
		}
	})
	r.stop = sync.OnceFunc(func() { cancel(); running.Wait() })
	t.Cleanup(r.stop)
	waitFor(t, "the replica to be ready", func() bool { return r.probe("/readyz") == http.StatusOK && r.probe("/healthz") == http.StatusOK })
	return r
}

func (r *replica) probe(path string) int {
	response, err := http.Get("http://" + r.probes + path)
	if err != nil {
		return 0
	}
	_ = response.Body.Close()
	return response.StatusCode
}

func serverCertificate(t *testing.T) (string, *x509.CertPool) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	for name, data := range map[string][]byte{
		gateway.CertName: certificate, gateway.KeyName: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(certificate)
	return dir, roots
}

// machine is a Host and the wire side of its agent.
type machine struct {
	t   *testing.T
	obj *nfv1.Host
	key ed25519.PrivateKey
}

func newMachine(t *testing.T, namespace string) *machine {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	line, err := identity.AuthorizedKey(key)
	if err != nil {
		t.Fatal(err)
	}
	h := &machine{t: t, key: key, obj: &nfv1.Host{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "web-01"},
		Spec:       nfv1.HostSpec{Platform: nfv1.PlatformX8664Linux, Identity: nfv1.HostIdentity{PublicKeys: []string{line}}},
	}}
	if err := env.Client.Create(t.Context(), h.obj); err != nil {
		t.Fatal(err)
	}
	return h
}

// call sends a request of the agent over a connection of its own.
func (h *machine) call(r *replica, method, path, contentType string, body any) (int, []byte) {
	h.t.Helper()
	certificate, err := identity.ClientCertificate(h.key)
	if err != nil {
		h.t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: r.roots, Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS13}}
	defer transport.CloseIdleConnections()
	data, err := json.Marshal(body)
	if err != nil {
		h.t.Fatal(err)
	}
	request, err := http.NewRequestWithContext(h.t.Context(), method, r.gateway+path, bytes.NewReader(data))
	if err != nil {
		h.t.Fatal(err)
	}
	request.Header.Set("Content-Type", contentType)
	response, err := transport.RoundTrip(request)
	if err != nil {
		h.t.Fatal(err)
	}
	defer response.Body.Close() //nolint:errcheck // Read whole.
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		h.t.Fatal(err)
	}
	return response.StatusCode, answer
}

func (h *machine) path() string {
	return fmt.Sprintf("/apis/nixfleet.io/v1alpha1/namespaces/%s/hosts/%s", h.obj.Namespace, h.obj.Name)
}

// renew renews the Lease.
func (h *machine) renew(r *replica) {
	h.t.Helper()
	path := fmt.Sprintf("/apis/coordination.k8s.io/v1/namespaces/%s/leases/%s", h.obj.Namespace, nfv1.LeaseName(h.obj.Name))
	code, answer := h.call(r, http.MethodPatch, path, string(types.MergePatchType), map[string]any{
		"spec": map[string]any{"holderIdentity": h.obj.Name, "renewTime": metav1.NowMicro()},
	})
	if code != http.StatusOK {
		h.t.Fatalf("renewal answered %d %s", code, answer)
	}
}

func (h *machine) report(r *replica, status nfv1.HostStatus) {
	h.t.Helper()
	code, answer := h.call(r, http.MethodPatch, h.path()+"/status", string(types.ApplyPatchType), map[string]any{
		"apiVersion": "nixfleet.io/v1alpha1", "kind": "Host",
		"metadata": map[string]any{"name": h.obj.Name, "namespace": h.obj.Namespace, "uid": h.obj.UID},
		"status":   status,
	})
	if code != http.StatusOK {
		h.t.Fatalf("report answered %d %s", code, answer)
	}
}

// seen is the Host as the agent sees it.
func (h *machine) seen(r *replica) *nfv1.Host {
	h.t.Helper()
	code, answer := h.call(r, http.MethodGet, h.path(), "", nil)
	if code == http.StatusForbidden { // The replica's cache has not got the Host yet.
		return &nfv1.Host{}
	}
	var got nfv1.Host
	if err := json.Unmarshal(answer, &got); err != nil || code != http.StatusOK {
		h.t.Fatalf("get answered %d %s", code, answer)
	}
	return &got
}

// status is the report of an agent at rest that runs path.
func (h *machine) status(path nfv1.StorePath, generation int64, attempt *nfv1.HostAttempt) nfv1.HostStatus {
	condition := func(kind string) metav1.Condition {
		return metav1.Condition{Type: kind, Status: metav1.ConditionTrue, Reason: nfv1.ReasonUpToDate, LastTransitionTime: metav1.Now()}
	}
	s := nfv1.HostStatus{
		Phase: nfv1.HostPhaseIdle, ObservedGeneration: generation, Running: &nfv1.SystemGeneration{StorePath: path}, Attempt: attempt,
		Conditions: []metav1.Condition{condition(nfv1.ConditionReady), condition(nfv1.ConditionHealthy), condition(nfv1.ConditionUpToDate)},
	}
	if attempt != nil {
		s.ObservedRevision = attempt.Revision
	}
	return s
}

const (
	oldSystem = nfv1.StorePath("/nix/store/0c0mmgsdhjxf8x4sjzzqvxw1hxsyqbnd-nixos-system-web-01-1")
	newSystem = nfv1.StorePath("/nix/store/1c0mmgsdhjxf8x4sjzzqvxw1hxsyqbnd-nixos-system-web-01-2")
)

// The way of a release to a host, through two replicas of which either may lead, up to
// what only a host can do.
func TestRolloutReachesAHostThroughAnyReplica(t *testing.T) {
	one, two := startReplica(t), startReplica(t)
	ctx := t.Context()
	h := newMachine(t, env.Namespace(ctx))
	stored := func() *nfv1.Host {
		var got nfv1.Host
		if err := env.Client.Get(ctx, client.ObjectKeyFromObject(h.obj), &got); err != nil {
			t.Fatal(err)
		}
		return &got
	}
	waitFor(t, "the Lease to be made", func() bool {
		key := types.NamespacedName{Namespace: h.obj.Namespace, Name: nfv1.LeaseName(h.obj.Name)}
		return env.Client.Get(ctx, key, &coordinationv1.Lease{}) == nil && h.seen(one).Name != "" && h.seen(two).Name != ""
	})
	h.renew(one)
	h.report(two, h.status(oldSystem, h.obj.Generation, nil))
	waitFor(t, "the host to be online", func() bool { return meta.IsStatusConditionTrue(stored().Status.Conditions, nfv1.ConditionOnline) })

	if err := env.Client.Create(ctx, &nfv1.Release{
		ObjectMeta: metav1.ObjectMeta{Namespace: h.obj.Namespace, Name: "second"},
		Spec: nfv1.ReleaseSpec{
			Caches:       []nfv1.BinaryCache{{URL: "http://127.0.0.1:1", PublicKeys: []nfv1.NixPublicKey{"cache-1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}}},
			Verification: nfv1.VerificationSkip,
			Hosts:        map[string]nfv1.StorePath{h.obj.Name: newSystem},
		},
	}); err != nil {
		t.Fatal(err)
	}
	rollout := &nfv1.Rollout{
		ObjectMeta: metav1.ObjectMeta{Namespace: h.obj.Namespace, Name: "second"},
		Spec:       nfv1.RolloutSpec{Release: "second", Hosts: []nfv1.HostName{nfv1.HostName(h.obj.Name)}},
	}
	if err := env.Client.Create(ctx, rollout); err != nil {
		t.Fatal(err)
	}
	var desired *nfv1.Desired
	waitFor(t, "both gateways to show the assignment", func() bool {
		desired = h.seen(one).Spec.Desired
		return desired != nil && h.seen(two).Spec.Desired != nil
	})
	if desired.StorePath != newSystem || desired.PreviousStorePath != oldSystem || desired.Rollout.UID != rollout.UID {
		t.Fatalf("the assignment is %+v", desired)
	}
	h.report(one, h.status(newSystem, stored().Generation, &nfv1.HostAttempt{
		Revision: desired.Revision, StorePath: desired.StorePath, RolloutUID: desired.Rollout.UID,
		Outcome: nfv1.AttemptSucceeded, Reason: nfv1.ReasonCompleted, StartedAt: metav1.Now(), FinishedAt: metav1.Now(),
	}))
	waitFor(t, "the rollout to succeed", func() bool {
		if err := env.Client.Get(ctx, client.ObjectKeyFromObject(rollout), rollout); err != nil {
			t.Fatal(err)
		}
		return rollout.Status.Phase == nfv1.RolloutPhaseSucceeded
	})
}

// When the leader stops, the other one goes on; its gateway has never stopped.
func TestAnotherReplicaTakesOver(t *testing.T) {
	leader := startReplica(t)
	ctx := t.Context()
	first := newMachine(t, env.Namespace(ctx))
	waitFor(t, "the first Lease", func() bool { return hasLease(ctx, first) })
	other := startReplica(t)
	leader.stop()
	second := newMachine(t, env.Namespace(ctx))
	waitFor(t, "the second Lease", func() bool { return hasLease(ctx, second) })
	waitFor(t, "the gateway to know the host", func() bool { return second.seen(other).Name != "" })
}

func hasLease(ctx context.Context, h *machine) bool {
	key := types.NamespacedName{Namespace: h.obj.Namespace, Name: nfv1.LeaseName(h.obj.Name)}
	return env.Client.Get(ctx, key, &coordinationv1.Lease{}) == nil
}

func TestTakenPortsNameTheFlag(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close() //nolint:errcheck // Only held.
	for flag, set := range map[string]func(*Options){
		"--metrics-bind-address":      func(o *Options) { o.MetricsBindAddress = taken.Addr().String() },
		"--health-probe-bind-address": func(o *Options) { o.HealthProbeBindAddress = taken.Addr().String() },
		"--gateway-bind-address":      func(o *Options) { o.GatewayBindAddress = taken.Addr().String() },
	} {
		t.Run(flag, func(t *testing.T) {
			options := NewOptions()
			options.LeaderElect = false
			options.MetricsBindAddress, options.HealthProbeBindAddress, options.GatewayBindAddress = "0", "0", "0"
			options.GatewayCertDir, _ = serverCertificate(t)
			set(&options)
			ctx, cancel := context.WithTimeout(t.Context(), eventually)
			defer cancel()
			mgr, err := New(env.ManagerConfig(), options)
			if err == nil {
				err = mgr.Start(ctx)
			}
			if err == nil || !strings.Contains(err.Error(), flag) || !strings.Contains(err.Error(), "in use") {
				t.Errorf("error is %v, want that the port of %s is in use", err, flag)
			}
		})
	}
}

func TestNewRefusesAConfigThatImpersonates(t *testing.T) {
	options := NewOptions()
	options.LeaderElect = false
	options.MetricsBindAddress, options.HealthProbeBindAddress, options.GatewayBindAddress = "0", "0", freePort(t)
	options.GatewayCertDir, _ = serverCertificate(t)
	config := rest.CopyConfig(env.Config)
	config.Impersonate.UserName = "alice"
	if _, err := New(config, options); err == nil || !strings.Contains(err.Error(), "impersonates alice") {
		t.Errorf("New = %v, want an error about the impersonation", err)
	}
}
