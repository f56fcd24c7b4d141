//go:build e2e

// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/agent"
	"github.com/nixfleet/nixfleet/internal/identity"
	"github.com/nixfleet/nixfleet/internal/nix"
)

// bootConfig says what the next boot brings. There is one entry.
const bootConfig = "boot/extlinux/extlinux.conf"

// exitReboot is what systemd-nspawn ends with when its machine wants to be booted again.
const exitReboot = 133

// host is a container with systemd.
type host struct {
	fleet   *fleet
	name    string
	address string
	root    string
	first   nix.StorePath

	mu      sync.Mutex
	nspawn  *exec.Cmd
	off     bool          // nobody shall boot it again
	ended   chan struct{} // closed when the machine is off for good
	reboots int
}

// newHost installs a system on a new host, registers it and boots it.
func (f *fleet) newHost(name string, number int) (*host, error) {
	h := &host{fleet: f, name: name, address: fmt.Sprintf("10.231.0.%d/24", number), root: f.path("hosts", name)}
	paths, err := f.build(newSystem(name, "installed"))
	if err != nil {
		return nil, err
	}
	h.first = paths[0]
	if err := h.layOut(); err != nil {
		return nil, err
	}
	if _, err := f.nix("nix", "copy", "--from", f.path("builder"), "--to", h.root, h.first.String(), "--option", "trusted-public-keys", f.key); err != nil {
		return nil, err
	}
	profile := filepath.Join(h.root, "nix/var/nix/profiles/system")
	if _, err := f.nix("nix-env", "--store", h.root, "--profile", profile, "--set", h.first.String()); err != nil {
		return nil, err
	}
	f.mu.Lock()
	f.hosts = append(f.hosts, h)
	f.mu.Unlock()
	if err := h.register(); err != nil {
		return nil, err
	}
	return h, h.powerOn()
}

// layOut makes the file system: Debian's programs, and what the installation of NixOS
// leaves beside the store.
func (h *host) layOut() error {
	for _, dir := range []string{"usr", "etc/nix", "etc/dbus-1", "var/log/journal", "var/lib", "boot/extlinux", "boot/nixos", "proc", "sys", "dev", "run", "tmp", "root"} {
		if err := os.MkdirAll(filepath.Join(h.root, dir), 0o755); err != nil {
			return err
		}
	}
	for link, target := range map[string]string{
		"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64", "etc/systemd/system": "/etc/static/systemd/system",
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(h.root, link)), 0o755); err != nil {
			return err
		}
		if err := os.Symlink(target, filepath.Join(h.root, link)); err != nil {
			return err
		}
	}
	for _, file := range []string{"passwd", "group", "nsswitch.conf", "ld.so.cache", "os-release", "login.defs"} {
		if err := command("cp", "-L", "/etc/"+file, filepath.Join(h.root, "etc", file)); err != nil {
			return err
		}
	}
	if err := command("cp", "-r", "/etc/alternatives", filepath.Join(h.root, "etc/alternatives")); err != nil {
		return err
	}
	if err := command("cp", h.fleet.caFile(), filepath.Join(h.root, "etc/gateway-ca.pem")); err != nil {
		return err
	}
	files := map[string]string{
		// A known identity: without one systemd would enable everything that Debian ships.
		"etc/machine-id":    fmt.Sprintf("%032x\n", len(h.name)+1),
		"etc/hostname":      h.name + "\n",
		"etc/host-address":  h.address + "\n",
		"etc/nix/nix.conf":  "build-users-group =\nsandbox = false\nexperimental-features = nix-command\n",
		"boot/nixos/kernel": "a kernel\n",
		bootConfig:          "DEFAULT nixos-default\nLABEL nixos-default\n  LINUX ../nixos/kernel\n  APPEND init=" + h.first.String() + "/init\n",
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(h.root, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// register makes the Host with the host's key.
func (h *host) register() error {
	key, err := identity.LoadOrCreateKey(filepath.Join(h.root, "etc/host.key"))
	if err != nil {
		return err
	}
	pin, err := identity.PinOf(key.Public())
	if err != nil {
		return err
	}
	object := &nfv1.Host{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: h.name},
		Spec: nfv1.HostSpec{
			Platform: platform(), Lifecycle: nfv1.LifecycleActive,
			Identity:   nfv1.HostIdentity{PublicKeys: []string{pin.String()}},
			Activation: nfv1.ActivationPolicy{ConfirmTimeoutSeconds: confirmSeconds, ActivationTimeoutSeconds: activationSeconds},
		},
	}
	return h.fleet.client.Create(h.fleet.ctx, object)
}

// powerOn boots the machine, and boots it again whenever it reboots itself.
func (h *host) powerOn() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.off, h.ended = false, make(chan struct{})
	if err := h.boot(); err != nil {
		return err
	}
	go h.attend(h.nspawn, h.ended)
	return nil
}

// attend waits for the end of the machine.
func (h *host) attend(nspawn *exec.Cmd, ended chan struct{}) {
	defer close(ended)
	for {
		_ = nspawn.Wait() // how it ended is in its state
		h.mu.Lock()
		if h.off || nspawn.ProcessState.ExitCode() != exitReboot {
			h.mu.Unlock()
			return
		}
		h.reboots++
		err := h.boot()
		nspawn = h.nspawn
		h.mu.Unlock()
		if err != nil {
			fmt.Fprintf(os.Stderr, "%s does not boot again: %v\n", h.name, err)
			return
		}
	}
}

// boot is the boot loader, and the first stage of NixOS: it takes the system that the
// boot default names.
func (h *host) boot() error {
	system, err := h.bootDefault()
	if err != nil {
		return err
	}
	if err := command("ln", "-sfn", system.String()+"/etc", filepath.Join(h.root, "etc/static")); err != nil {
		return err
	}
	start := "L+ /run/booted-system - - - - " + system.String() + "\nL+ /run/current-system - - - - " + system.String() + "\n"
	if err := os.MkdirAll(filepath.Join(h.root, "etc/tmpfiles.d"), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(h.root, "etc/tmpfiles.d/nixos.conf"), []byte(start), 0o644); err != nil {
		return err
	}
	console, err := os.OpenFile(h.fleet.path("hosts", h.name+".console"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer console.Close() //nolint:errcheck // the child has it
	h.nspawn = exec.Command("systemd-nspawn", "--quiet", "--directory="+h.root, "--boot", "--register=no", "--keep-unit", "--machine=e2e-"+h.name,
		"--network-bridge="+bridge, "--bind-ro=/usr", "--console=pipe", "--resolv-conf=off", "--timezone=off", "--link-journal=no",
		"systemd.unit=multi-user.target", "systemd.mask=systemd-networkd.service", "systemd.mask=systemd-firstboot.service")
	h.nspawn.Stdout, h.nspawn.Stderr = console, console
	h.nspawn.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	return h.nspawn.Start()
}

// leader is process 1 of the host, as this machine numbers it.
func (h *host) leader() (int, error) {
	h.mu.Lock()
	nspawn := h.nspawn
	h.mu.Unlock()
	out, err := output(nil, "pgrep", "-P", strconv.Itoa(nspawn.Process.Pid))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.Fields(out)[0])
}

// cutPower ends every process of the host at once, and returns when it is off.
func (h *host) cutPower() {
	h.mu.Lock()
	h.off = true
	nspawn, ended := h.nspawn, h.ended
	h.mu.Unlock()
	if nspawn == nil {
		return
	}
	if leader, err := h.leader(); err == nil {
		// Nobody shall see that others are gone.
		freeze(leader)
		_ = syscall.Kill(leader, syscall.SIGKILL)
	}
	_ = syscall.Kill(-nspawn.Process.Pid, syscall.SIGKILL)
	<-ended
	// Its end of the cable goes away a little later by itself; nspawn wants to make it anew.
	_ = command("ip", "link", "delete", "vb-e2e-"+h.name)
}

// freeze stops every process of a container but its first. What fails has ended.
func freeze(leader int) {
	space, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", leader))
	if err != nil {
		return
	}
	all, _ := filepath.Glob("/proc/[0-9]*")
	for _, directory := range all {
		pid, err := strconv.Atoi(filepath.Base(directory))
		if err != nil || pid == leader {
			continue
		}
		if of, err := os.Readlink(filepath.Join(directory, "ns/pid")); err == nil && of == space {
			_ = syscall.Kill(pid, syscall.SIGSTOP)
		}
	}
}

// in runs a command on the host and answers its output.
func (h *host) in(args ...string) (string, error) {
	leader, err := h.leader()
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(h.fleet.ctx, time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{"-t", strconv.Itoa(leader), "-a"}, args...)...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("on %s: %s: %w: %s", h.name, strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

// running is the system that runs, as a look from outside shows it.
func (h *host) running() (nix.StorePath, error) {
	out, err := h.in("readlink", "/run/current-system")
	if err != nil {
		return "", err
	}
	return nix.ParseStorePath(strings.TrimSpace(out))
}

// profile is the system that the profile names.
func (h *host) profile() (nix.StorePath, error) {
	dir := filepath.Join(h.root, "nix/var/nix/profiles")
	generation, err := os.Readlink(filepath.Join(dir, "system"))
	if err != nil {
		return "", err
	}
	target, err := os.Readlink(filepath.Join(dir, generation))
	if err != nil {
		return "", err
	}
	return nix.ParseStorePath(target)
}

// bootDefault is the system that the next boot brings.
func (h *host) bootDefault() (nix.StorePath, error) {
	text, err := os.ReadFile(filepath.Join(h.root, bootConfig))
	if err != nil {
		return "", err
	}
	_, line, _ := strings.Cut(string(text), " init=")
	init, _, _ := strings.Cut(line, "/init")
	return nix.ParseStorePath(init)
}

// object is the Host as the API has it.
func (h *host) object() (*nfv1.Host, error) {
	var object nfv1.Host
	err := h.fleet.client.Get(h.fleet.ctx, clientKey(h.name), &object)
	return &object, err
}

// journal is what the agent remembers.
func (h *host) journal() (agent.Journal, error) {
	var journal agent.Journal
	text, err := os.ReadFile(filepath.Join(h.root, "var/lib/nixfleet/journal.json"))
	if err != nil {
		return journal, err
	}
	return journal, json.Unmarshal(text, &journal)
}

// story is what is to be read when something went wrong.
func (h *host) story() string {
	var b strings.Builder
	journal, err := output(nil, "journalctl", "--directory="+filepath.Join(h.root, "var/log/journal"), "--no-pager", "--output=short-monotonic", "--lines=150")
	fmt.Fprintf(&b, "--- journal of %s\n%s\n", h.name, journal)
	logs, listErr := filepath.Glob(filepath.Join(h.root, "var/lib/nixfleet/logs/*"))
	for _, file := range logs {
		text, readErr := os.ReadFile(file)
		fmt.Fprintf(&b, "--- %s\n%s\n", file, lastLines(string(text), 30))
		err = errors.Join(err, readErr)
	}
	state, readErr := os.ReadFile(filepath.Join(h.root, "var/lib/nixfleet/journal.json"))
	fmt.Fprintf(&b, "--- the agent's journal\n%s\n", state)
	if err := errors.Join(err, listErr, readErr); err != nil {
		fmt.Fprintf(&b, "--- could not be read: %v\n", err)
	}
	return b.String()
}
