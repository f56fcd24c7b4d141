//go:build integration

// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package main

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/nixfleet/nixfleet/cmd/control-plane/internal/command"
)

// runMain in the environment makes the test binary be the program itself. So
// the tests kill and restart a real process without a second link, which takes
// longer than all of them.
const runMain = "NIXFLEET_TEST_RUN_MAIN"

const (
	startTimeout = 2 * time.Minute
	// stopTimeout is what a stop may take: less than systemd's patience and
	// than a person's.
	stopTimeout = 15 * time.Second
)

func TestMain(m *testing.M) {
	if os.Getenv(runMain) != "" {
		os.Exit(command.Execute())
	}
	os.Exit(m.Run())
}

// process is a control plane in a process of its own.
type process struct {
	dir    string
	cmd    *exec.Cmd
	log    *lockedBuffer
	exited chan struct{}

	config  *rest.Config
	client  *kubernetes.Clientset
	dynamic *dynamic.DynamicClient
}

// lockedBuffer is written by the process and read by the test.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// launch starts the program on free ports, without waiting for anything.
func launch(t *testing.T, dir string, env ...string) *process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{dir: dir, log: &lockedBuffer{}, exited: make(chan struct{})}
	p.cmd = exec.Command(self, "--data-dir", dir, "--secure-port", "0", "--gateway-address", "127.0.0.1:0")
	p.cmd.Env = append(os.Environ(), append(env, runMain+"=1")...)
	p.cmd.Stderr = p.log
	p.cmd.Stdout = p.log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.exited)
		_ = p.cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.exited
		if t.Failed() {
			t.Logf("log of process %d:\n%s", p.cmd.Process.Pid, p.log)
		}
	})
	return p
}

// start starts the program and returns when it has told systemd, that is this
// test, that it is ready.
func start(t *testing.T, dir string) *process {
	t.Helper()
	begin := time.Now()
	socket := filepath.Join(t.TempDir(), "notify")
	notifications, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = notifications.Close() })
	p := launch(t, dir, "NOTIFY_SOCKET="+socket)
	if err := notifications.SetReadDeadline(time.Now().Add(startTimeout)); err != nil {
		t.Fatal(err)
	}
	go func() {
		<-p.exited
		_ = notifications.Close()
	}()
	buf := make([]byte, 1024)
	n, err := notifications.Read(buf)
	if err != nil {
		t.Fatalf("the control plane did not become ready: %v", err)
	}
	if got := string(buf[:n]); got != "READY=1" {
		t.Fatalf("the first notification is %q, want READY=1", got)
	}
	t.Logf("ready after %s, %s", time.Since(begin).Round(time.Millisecond), p.resident())
	p.connect(t)
	return p
}

// connect makes clients from the kubeconfig, as a user would.
func (p *process) connect(t *testing.T) {
	t.Helper()
	var err error
	if p.config, err = clientcmd.BuildConfigFromFlags("", filepath.Join(p.dir, "admin.kubeconfig")); err != nil {
		t.Fatal(err)
	}
	p.config.QPS = -1
	p.client = clientFor(t, p.config)
	if p.dynamic, err = dynamic.NewForConfig(p.config); err != nil {
		t.Fatal(err)
	}
}

func clientFor(t *testing.T, config *rest.Config) *kubernetes.Clientset {
	t.Helper()
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// resident is for people who read the test's log.
func (p *process) resident() string {
	status, err := os.ReadFile(filepath.Join("/proc", itoa(p.cmd.Process.Pid), "status"))
	if err != nil {
		return "memory unknown"
	}
	for line := range strings.Lines(string(status)) {
		if strings.HasPrefix(line, "VmRSS:") {
			return strings.Join(strings.Fields(line), " ")
		}
	}
	return "memory unknown"
}

// stop asks the process to end and returns its exit code.
func (p *process) stop(t *testing.T) int {
	t.Helper()
	begin := time.Now()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	p.waitExit(t, stopTimeout)
	t.Logf("stopped after %s", time.Since(begin).Round(time.Millisecond))
	return p.cmd.ProcessState.ExitCode()
}

// kill ends the process as a power cut would.
func (p *process) kill(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	p.waitExit(t, stopTimeout)
}

func (p *process) waitExit(t *testing.T, timeout time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	select {
	case <-p.exited:
	case <-ctx.Done():
		t.Fatalf("the process is still there after %s", timeout)
	}
}
