//go:build integration

// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/testenv"
)

var env *testenv.Env

func TestMain(m *testing.M) {
	os.Exit(testenv.Run(m, func(e *testenv.Env) { env = e }))
}

// fleetOf makes a namespace with a host that runs release a, and returns the flags that
// point there.
func fleetOf(t *testing.T) (namespace string, flags []string) {
	t.Helper()
	namespace = env.Namespace(t.Context())
	host := &nfv1.Host{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "web-01", Labels: map[string]string{"role": "web"}},
		Spec:       nfv1.HostSpec{Platform: nfv1.PlatformX8664Linux},
	}
	create(t, host)
	host.Status = nfv1.HostStatus{
		ObservedGeneration: 1, Phase: nfv1.HostPhaseIdle,
		Running:    &nfv1.SystemGeneration{StorePath: "/nix/store/0c0mmgsdhjxf8x4sjzzqvxw1hxsyqbnd-nixos-system-web-01", Label: "26.05.a"},
		Conditions: []metav1.Condition{{Type: nfv1.ConditionOnline, Status: metav1.ConditionTrue, Reason: nfv1.ReasonLeaseRenewed, LastTransitionTime: metav1.Now()}},
		NodeInfo:   &nfv1.NodeInfo{AgentVersion: "v1.2.3"},
	}
	updateStatus(t, host)
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: nfv1.LeaseName("web-01"), Labels: map[string]string{nfv1.GroupName + "/host": ""}}}
	now := metav1.NowMicro()
	lease.Spec.RenewTime = &now
	if err := env.Client.Create(t.Context(), lease, client.FieldOwner(nfv1.FieldOwnerAgent)); err != nil {
		t.Fatal(err)
	}
	return namespace, []string{"--kubeconfig", kubeconfig(t, env.Config), "-n", namespace}
}

func create(t *testing.T, o client.Object) {
	t.Helper()
	if err := env.Client.Create(t.Context(), o); err != nil {
		t.Fatal(err)
	}
}

func updateStatus(t *testing.T, o client.Object) {
	t.Helper()
	if err := env.Client.Status().Update(t.Context(), o); err != nil {
		t.Fatal(err)
	}
}

func kubeconfig(t *testing.T, c *rest.Config) string {
	t.Helper()
	config := clientcmdapi.NewConfig()
	config.Clusters["test"] = &clientcmdapi.Cluster{Server: c.Host, CertificateAuthorityData: c.CAData}
	config.AuthInfos["test"] = &clientcmdapi.AuthInfo{ClientCertificateData: c.CertData, ClientKeyData: c.KeyData, Token: c.BearerToken}
	config.Contexts["test"] = &clientcmdapi.Context{Cluster: "test", AuthInfo: "test"}
	config.CurrentContext = "test"
	file := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*config, file); err != nil {
		t.Fatal(err)
	}
	return file
}

func aRollout(t *testing.T, namespace string, phase nfv1.RolloutPhase) *nfv1.Rollout {
	t.Helper()
	r := &nfv1.Rollout{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "to-b"},
		Spec:       nfv1.RolloutSpec{Release: "b", Selector: &nfv1.HostSelector{}},
	}
	create(t, r)
	setPhase(t, r, phase)
	return r
}

func setPhase(t *testing.T, r *nfv1.Rollout, phase nfv1.RolloutPhase) {
	t.Helper()
	r.Status = nfv1.RolloutStatus{
		ObservedGeneration: r.Generation, Phase: phase, Message: "because of a test", WaveProgress: "1/1", HostProgress: "0/1",
		Waves: []nfv1.WaveStatus{{Name: "all", Size: 1, Assigned: 1, StartedAt: metav1.Now()}},
	}
	updateStatus(t, r)
}

func TestStatusOfAFleet(t *testing.T) {
	namespace, flags := fleetOf(t)
	got := execute(t, append(flags, "status")...)
	if got.code != ExitDone || !strings.Contains(got.out, "web-01") || !strings.Contains(got.out, "0c0mmgsd 26.05.a") ||
		!strings.Contains(got.out, "s ago") || !strings.Contains(got.out, "1 host, 1 online") {
		t.Errorf("got code %d, errors %q and\n%s", got.code, got.errOut, got.out)
	}
	everywhere := execute(t, append(flags, "status", "-A")...)
	if !strings.Contains(everywhere.out, namespace) {
		t.Errorf("-A does not show the namespace %s:\n%s", namespace, everywhere.out)
	}
	others := execute(t, append(flags, "status", "-l", "role=db")...)
	if others.code != ExitDone || others.out != "No hosts found.\n" {
		t.Errorf("a selector that matches nothing: got code %d and %q", others.code, others.out)
	}
}

func TestStatusOfAHost(t *testing.T) {
	namespace, flags := fleetOf(t)
	aRollout(t, namespace, nfv1.RolloutPhaseBlocked)
	got := execute(t, append(flags, "status", "web-01")...)
	if got.code != ExitDone || !strings.Contains(got.out, "rollout to-b is to move it to release b and has not assigned it yet: Blocked: because of a test") {
		t.Errorf("got code %d, errors %q and\n%s", got.code, got.errOut, got.out)
	}
	missing := execute(t, append(flags, "status", "web-01", "web-99")...)
	if missing.code != ExitFailed || !strings.Contains(missing.errOut, `no Host "web-99"`) || missing.out != "" {
		t.Errorf("got code %d, errors %q and %q", missing.code, missing.errOut, missing.out)
	}
}

func TestStatusInOtherFormats(t *testing.T) {
	_, flags := fleetOf(t)
	if got := execute(t, append(flags, "status", "-o", "name")...); got.out != "host.nixfleet.io/web-01\n" {
		t.Errorf("name: got %q and %q", got.out, got.errOut)
	}
	var list nfv1.HostList
	if got := execute(t, append(flags, "status", "-o", "json")...); json.Unmarshal([]byte(got.out), &list) != nil || list.Items[0].Name != "web-01" || list.Items[0].Kind != "Host" {
		t.Errorf("json: got %q and %q", got.out, got.errOut)
	}
	if got := execute(t, append(flags, "status", "web-01", "-o", "yaml")...); !strings.Contains(got.out, "\nkind: Host\n") {
		t.Errorf("yaml: got %q and %q", got.out, got.errOut)
	}
	if got := execute(t, append(flags, "status", "-o", "wide")...); !strings.Contains(got.out, "/nix/store/0c0mmgsdhjxf8x4sjzzqvxw1hxsyqbnd-nixos-system-web-01") {
		t.Errorf("wide: got %q and %q", got.out, got.errOut)
	}
	if got := execute(t, append(flags, "status", "-o", "jsonpath={.items[*].metadata.name}")...); got.out != "web-01" {
		t.Errorf("jsonpath: got %q and %q", got.out, got.errOut)
	}
}

func TestRolloutStatus(t *testing.T) {
	namespace, flags := fleetOf(t)
	aRollout(t, namespace, nfv1.RolloutPhasePaused)
	got := execute(t, append(flags, "rollout", "status", "to-b")...)
	if got.code != ExitDone || !strings.Contains(got.out, "rollout to-b  release b  Paused  wave 1/1  hosts 0/1\n  because of a test\n") {
		t.Errorf("got code %d, errors %q and\n%s", got.code, got.errOut, got.out)
	}
	missing := execute(t, append(flags, "rollout", "status", "to-z")...)
	if missing.code != ExitFailed || !strings.Contains(missing.errOut, `no Rollout "to-z"`) {
		t.Errorf("got code %d and %q", missing.code, missing.errOut)
	}
}

func TestWaitEndsWithTheResult(t *testing.T) {
	tests := map[nfv1.RolloutPhase]int{
		nfv1.RolloutPhaseSucceeded:        ExitDone,
		nfv1.RolloutPhaseFailed:           ExitFailed,
		nfv1.RolloutPhasePaused:           ExitNeedsPerson,
		nfv1.RolloutPhaseAwaitingApproval: ExitNeedsPerson,
	}
	for phase, want := range tests {
		t.Run(string(phase), func(t *testing.T) {
			namespace, flags := fleetOf(t)
			r := aRollout(t, namespace, nfv1.RolloutPhaseProgressing)
			running := begin(t.Context(), t, append(flags, "rollout", "status", "to-b", "--wait", "--wait-timeout", "1m")...)
			running.awaitOutput(t, "Progressing, wave 1/1, hosts 0/1: because of a test\n")
			setPhase(t, r, phase)
			if got := running.end(t); got.code != want || !strings.Contains(got.out, string(phase)+", wave 1/1") {
				t.Errorf("got code %d, errors %q and\n%s; want code %d", got.code, got.errOut, got.out, want)
			}
		})
	}
}

func TestWaitStops(t *testing.T) {
	namespace, flags := fleetOf(t)
	r := aRollout(t, namespace, nfv1.RolloutPhaseProgressing)
	t.Run("after the timeout", func(t *testing.T) {
		got := execute(t, append(flags, "rollout", "status", "to-b", "--wait", "--wait-timeout", "1s")...)
		if got.code != ExitStoppedWaiting || !strings.Contains(got.errOut, "not finished after 1s (Progressing") {
			t.Errorf("got code %d and %q", got.code, got.errOut)
		}
	})
	t.Run("when it is interrupted", func(t *testing.T) {
		ctx, interrupt := context.WithCancel(t.Context())
		running := begin(ctx, t, append(flags, "rollout", "status", "to-b", "--wait")...)
		running.awaitOutput(t, "Progressing")
		interrupt()
		if got := running.end(t); got.code != ExitStoppedWaiting {
			t.Errorf("got code %d and %q", got.code, got.errOut)
		}
	})
	t.Run("watch, which is left that way", func(t *testing.T) {
		ctx, interrupt := context.WithCancel(t.Context())
		running := begin(ctx, t, append(flags, "rollout", "status", "to-b", "--watch")...)
		running.awaitOutput(t, "Progressing")
		interrupt()
		if got := running.end(t); got.code != ExitDone {
			t.Errorf("got code %d and %q", got.code, got.errOut)
		}
	})
	t.Run("when the rollout is deleted", func(t *testing.T) {
		running := begin(t.Context(), t, append(flags, "rollout", "status", "to-b", "--wait")...)
		running.awaitOutput(t, "Progressing")
		if err := env.Client.Delete(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		if got := running.end(t); got.code != ExitFailed || !strings.Contains(got.errOut, "was deleted") {
			t.Errorf("got code %d and %q", got.code, got.errOut)
		}
	})
}

func TestWatchOfTheFleetWritesALineForEachChange(t *testing.T) {
	namespace, flags := fleetOf(t)
	ctx, interrupt := context.WithCancel(t.Context())
	running := begin(ctx, t, append(flags, "status", "--watch")...)
	running.awaitOutput(t, "web-01  Idle")
	host := &nfv1.Host{}
	if err := env.Client.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: "web-01"}, host); err != nil {
		t.Fatal(err)
	}
	host.Status.Phase = nfv1.HostPhaseFetching
	updateStatus(t, host)
	running.awaitOutput(t, "web-01  Fetching")
	interrupt()
	got := running.end(t)
	if lines := strings.Count(got.out, "\n"); got.code != ExitDone || lines != 3 {
		t.Errorf("got code %d and %d lines, want a title and two rows:\n%s", got.code, lines, got.out)
	}
}

func TestWithoutRightsItSaysWhichAreMissing(t *testing.T) {
	namespace := env.Namespace(t.Context())
	config := rest.AnonymousClientConfig(env.Config)
	for _, args := range [][]string{{"status"}, {"status", "--watch"}, {"rollout", "status", "x", "--wait"}} {
		got := execute(t, append([]string{"--kubeconfig", kubeconfig(t, config), "-n", namespace}, args...)...)
		if got.code != ExitFailed || !strings.Contains(got.errOut, "ask for the right") && !strings.Contains(got.errOut, "credentials") {
			t.Errorf("%v: got code %d and %q", args, got.code, got.errOut)
		}
	}
}

func TestCompletion(t *testing.T) {
	namespace, flags := fleetOf(t)
	aRollout(t, namespace, nfv1.RolloutPhaseProgressing)
	tests := map[string]struct {
		args []string
		want string
	}{
		"hosts":             {[]string{"status", ""}, "web-01\n:4\n"},
		"hosts given":       {[]string{"status", "web-01", ""}, ":4\n"},
		"rollouts":          {[]string{"rollout", "status", ""}, "to-b\trelease b, Progressing\n:4\n"},
		"one rollout alone": {[]string{"rollout", "status", "to-b", ""}, ":4\n"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got := execute(t, append(append([]string{"__complete"}, flags...), tc.args...)...)
			if got.out != tc.want {
				t.Errorf("got %q and %q, want %q", got.out, got.errOut, tc.want)
			}
		})
	}
}

func TestVersion(t *testing.T) {
	_, flags := fleetOf(t)
	got := execute(t, append(flags, "version")...)
	if got.code != ExitDone || !strings.Contains(got.out, "Kubernetes API    v1.") || !strings.Contains(got.out, "agents            v1.2.3 (1)") {
		t.Errorf("got code %d, errors %q and\n%s", got.code, got.errOut, got.out)
	}
}

// command is a command line that runs.
type command struct {
	out    *growing
	errOut *growing
	done   chan int
}

// growing is written by the command and read by the test.
type growing struct {
	mu      sync.Mutex
	buffer  bytes.Buffer
	changed chan struct{}
}

func (g *growing) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case g.changed <- struct{}{}:
	default:
	}
	return g.buffer.Write(p)
}

func (g *growing) String() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.buffer.String()
}

func begin(ctx context.Context, t *testing.T, args ...string) *command {
	t.Helper()
	c := &command{out: &growing{changed: make(chan struct{}, 1)}, errOut: &growing{changed: make(chan struct{}, 1)}, done: make(chan int, 1)}
	go func() {
		c.done <- Execute(ctx, args, Streams{
			IOStreams: genericiooptions.IOStreams{In: strings.NewReader(""), Out: c.out, ErrOut: c.errOut}, Clock: clock.RealClock{},
		})
	}()
	return c
}

const patience = time.Minute

func (c *command) awaitOutput(t *testing.T, part string) {
	t.Helper()
	timeout := time.After(patience)
	for !strings.Contains(c.out.String(), part) {
		select {
		case <-c.out.changed:
		case code := <-c.done:
			t.Fatalf("the command ended with code %d, errors %q and\n%s", code, c.errOut, c.out)
		case <-timeout:
			t.Fatalf("no %q in\n%s\nerrors: %s", part, c.out, c.errOut)
		}
	}
}

func (c *command) end(t *testing.T) output {
	t.Helper()
	select {
	case code := <-c.done:
		return output{code, c.out.String(), c.errOut.String()}
	case <-time.After(patience):
		t.Fatalf("the command goes on; its output is\n%s", c.out)
		return output{}
	}
}
