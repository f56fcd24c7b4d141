//go:build e2e

// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package e2e

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

const (
	namespace   = "fleet"
	gatewayPort = 8443
	apiPort     = 6443
	cachePort   = 8080
	// startTimeout is what the control plane may take on a slow machine.
	startTimeout = 3 * time.Minute
	look         = 250 * time.Millisecond
)

// fleet is the control plane, the build machine and its cache, and the hosts.
type fleet struct {
	ctx    context.Context
	dir    string
	client client.Client
	key    string // the public key that systems are signed with

	controlPlane *exec.Cmd
	cache        *http.Server

	building sync.Mutex

	// stalled is the host that the cache sends no contents to, for a while.
	stalled atomic.Pointer[string]

	mu    sync.Mutex
	hosts []*host
}

func (f *fleet) path(elements ...string) string {
	return filepath.Join(append([]string{f.dir}, elements...)...)
}

func (f *fleet) cacheURL() string { return fmt.Sprintf("http://%s:%d", hubAddress, cachePort) }

func (f *fleet) server() string { return fmt.Sprintf("https://%s:%d", hubAddress, gatewayPort) }

// start makes the build machine, its cache and the control plane.
func (f *fleet) start() error {
	for _, dir := range []string{"cache", "nix", "home", "builder", "hosts"} {
		if err := os.MkdirAll(f.path(dir), 0o755); err != nil {
			return err
		}
	}
	if err := f.makeKey(); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", fmt.Sprintf("%s:%d", hubAddress, cachePort))
	if err != nil {
		return err
	}
	f.cache = &http.Server{Handler: f.serveCache(http.FileServer(http.Dir(f.path("cache")))), ReadHeaderTimeout: time.Minute}
	go func() { _ = f.cache.Serve(listener) }()
	return f.startControlPlane()
}

// serveCache serves files, but no contents to the host that is stalled.
func (f *fleet) serveCache(files http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if name := f.stalled.Load(); name != nil && strings.HasPrefix(r.URL.Path, "/nar/") && f.isFrom(r, *name) {
			<-r.Context().Done()
			return
		}
		files.ServeHTTP(w, r)
	})
}

func (f *fleet) isFrom(r *http.Request, name string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, h := range f.hosts {
		if h.name == name {
			return strings.HasPrefix(r.RemoteAddr, strings.TrimSuffix(h.address, "/24")+":")
		}
	}
	return false
}

func (f *fleet) startControlPlane() error {
	log, err := os.Create(f.path("control-plane.log"))
	if err != nil {
		return err
	}
	f.controlPlane = exec.Command("../../bin/nixfleet-control-plane", "--data-dir", f.path("control-plane"),
		"--secure-port", fmt.Sprint(apiPort), "--gateway-address", fmt.Sprintf("%s:%d", hubAddress, gatewayPort), "--host-offline-after", "10s")
	f.controlPlane.Stdout, f.controlPlane.Stderr = log, log
	f.controlPlane.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := f.controlPlane.Start(); err != nil {
		return err
	}
	var last error
	err = wait.PollUntilContextTimeout(f.ctx, look, startTimeout, true, func(ctx context.Context) (bool, error) {
		last = f.ready(ctx)
		return last == nil, nil
	})
	if err != nil {
		text, _ := os.ReadFile(log.Name())
		return fmt.Errorf("the control plane is not ready: %w: %w\n%s", err, last, lastLines(string(text), 40))
	}
	return nil
}

// ready says what the control plane cannot do yet.
func (f *fleet) ready(ctx context.Context) error {
	if f.client == nil {
		if err := f.connect(); err != nil {
			return err
		}
	}
	space := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}
	if err := f.client.Create(ctx, space); client.IgnoreAlreadyExists(err) != nil {
		return err
	}
	if err := f.client.List(ctx, &nfv1.HostList{}); err != nil {
		return err
	}
	_, err := os.Stat(f.caFile())
	return err
}

func (f *fleet) caFile() string { return f.path("control-plane", "pki", "gateway-ca.crt") }

func (f *fleet) connect() error {
	config, err := clientcmd.BuildConfigFromFlags("", f.path("control-plane", "admin.kubeconfig"))
	if err != nil {
		return err
	}
	scheme := runtime.NewScheme()
	if err := nfv1.AddToScheme(scheme); err != nil {
		return err
	}
	if err := corev1.AddToScheme(scheme); err != nil {
		return err
	}
	f.client, err = client.New(config, client.Options{Scheme: scheme})
	return err
}

// remove ends everything and deletes it, unless KEEP is set.
func (f *fleet) remove() {
	f.mu.Lock()
	hosts := f.hosts
	f.mu.Unlock()
	for _, h := range hosts {
		h.cutPower()
	}
	if f.controlPlane != nil && f.controlPlane.Process != nil {
		_ = syscall.Kill(-f.controlPlane.Process.Pid, syscall.SIGKILL)
		_ = f.controlPlane.Wait()
	}
	if f.cache != nil {
		_ = f.cache.Close()
	}
	if os.Getenv("KEEP") != "" {
		fmt.Println("kept:", f.dir)
		return
	}
	if err := os.RemoveAll(f.dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
