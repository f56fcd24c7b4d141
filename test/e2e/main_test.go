//go:build e2e

// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Everything listens in a network of its own, so that nothing of the machine is touched.
const (
	bridge     = "br0"
	hubAddress = "10.231.0.1"
	inside     = "NIXFLEET_E2E_NETWORK"
)

// theFleet is what all tests share.
var theFleet *fleet

func TestMain(m *testing.M) {
	if os.Getenv(inside) == "" {
		os.Exit(enterNetwork())
	}
	os.Exit(run(m))
}

// enterNetwork makes the network and runs this program again inside it.
func enterNetwork() int {
	if err := checkMachine(); err != nil {
		fmt.Fprintln(os.Stderr, "The tests on real hosts cannot run here:", err)
		return 1
	}
	network := fmt.Sprintf("nixfleet-e2e-%d", os.Getpid())
	if err := makeNetwork(network); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = command("ip", "netns", "delete", network) }()
	self, err := os.Executable()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	// Not "ip netns exec": it mounts /sys anew, without control groups.
	again := exec.Command("nsenter", append([]string{"--net=/run/netns/" + network, self}, os.Args[1:]...)...)
	again.Env = append(os.Environ(), inside+"=1")
	again.Stdin, again.Stdout, again.Stderr = os.Stdin, os.Stdout, os.Stderr
	// The terminal sends an interrupt to both; this one waits for the other's end.
	signal.Ignore(os.Interrupt, syscall.SIGTERM)
	if err := again.Run(); err != nil {
		return 1
	}
	return 0
}

func checkMachine() error {
	var errs []error
	if os.Geteuid() != 0 {
		errs = append(errs, errors.New("they need root"))
	}
	for program, source := range map[string]string{
		"systemd-nspawn": "systemd-container", "nix-build": "nix-bin", "ip": "iproute2", "nft": "nftables", "nsenter": "util-linux", "flock": "util-linux", "pgrep": "procps",
	} {
		if _, err := exec.LookPath(program); err != nil {
			errs = append(errs, fmt.Errorf("%s is missing (Debian: %s)", program, source))
		}
	}
	for _, program := range []string{"nixfleet-agent", "nixfleet-control-plane"} {
		if _, err := os.Stat(filepath.Join("..", "..", "bin", program)); err != nil {
			errs = append(errs, fmt.Errorf("bin/%s is missing: make build", program))
		}
	}
	return errors.Join(errs...)
}

func makeNetwork(network string) error {
	for _, args := range [][]string{
		{"netns", "add", network},
		{"-n", network, "link", "set", "lo", "up"},
		{"-n", network, "link", "add", bridge, "type", "bridge"},
		{"-n", network, "address", "add", hubAddress + "/24", "dev", bridge},
		{"-n", network, "link", "set", bridge, "up"},
	} {
		if err := command("ip", args...); err != nil {
			return err
		}
	}
	return nil
}

// run starts the fleet, runs the tests, and leaves nothing behind.
func run(m *testing.M) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	dir, err := os.MkdirTemp("", "nixfleet-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	theFleet = &fleet{ctx: ctx, dir: dir}
	defer theFleet.remove()
	if err := theFleet.start(); err != nil {
		fmt.Fprintln(os.Stderr, "start the fleet:", err)
		return 1
	}
	return m.Run()
}

// command runs a program of this machine.
func command(program string, args ...string) error {
	_, err := output(nil, program, args...)
	return err
}

func output(env []string, program string, args ...string) (string, error) {
	cmd := exec.Command(program, args...)
	cmd.Env = env
	out, err := cmd.Output()
	if err != nil {
		text := ""
		if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
			text = string(exit.Stderr)
		}
		return "", fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, text)
	}
	return string(out), nil
}
