// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package main

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/nixfleet/nixfleet/internal/nix"
)

//go:embed systems.nix
var systemsNix []byte

// installed is what the hosts run before the first release, as from an installation medium.
const installed = "installed"

// systems are the store paths of the hosts' systems, by release and host.
type systems map[string]map[string]nix.StorePath

func (s systems) add(release, host string, path nix.StorePath) {
	if s[release] == nil {
		s[release] = map[string]nix.StorePath{}
	}
	s[release][host] = path
}

// recipe is one system to build, as systems.nix takes it.
type recipe struct {
	Host  string `json:"host"`
	Label string `json:"label"`
	// Port is that of the host's service.
	Port int `json:"port"`
	// Status is what the service answers under this system.
	Status int `json:"status"`
	// Seconds is how long the activation takes.
	Seconds int `json:"seconds"`
}

// name is the name of the system in the store.
func (r recipe) name() string { return "nixos-system-" + r.Host + "-" + r.Label }

func label(release string) string { return "26.05." + release }

// signingKey is the key of the fleet's build machine.
type signingKey struct {
	secretFile string
	public     string
}

// buildSystems builds the systems of all releases on the "build machine", signs those that
// are to be signed and fills the binary cache.
func (d *demo) buildSystems(activationSeconds int) error {
	if err := d.makeSigningKey(); err != nil {
		return err
	}
	recipes := d.recipes(activationSeconds)
	built, err := d.nixBuild(recipes)
	if err != nil {
		return err
	}
	signed := make([]string, 0, len(built))
	d.systems = systems{}
	for _, r := range recipes {
		path := built[r.name()]
		release := strings.TrimPrefix(r.Label, "26.05.")
		d.systems.add(release, r.Host, path)
		if release != "d" || r.Host == foreignHost {
			signed = append(signed, path.String())
		}
	}
	if err := d.nixRun("nix", append([]string{"store", "sign", "--store", d.builder(), "-r", "-k", d.key.secretFile}, signed...)...); err != nil {
		return err
	}
	if err := d.addBadSystems(); err != nil {
		return err
	}
	return d.fillCache()
}

// Hosts with a part of their own in release d.
const (
	unsignedHost         = "web-01"
	contentAddressedHost = "web-02"
	foreignReceiver      = "web-03"
	foreignHost          = "db-01"
)

// recipes are the systems to build. Release d-unchecked has the systems of d, and
// back-to-b those of b.
func (d *demo) recipes(seconds int) []recipe {
	var all []recipe
	for _, h := range d.hosts {
		for _, release := range []string{installed, "a", "b", "c", "e"} {
			r := recipe{Host: h.name, Label: label(release), Port: h.port, Status: 200, Seconds: seconds}
			if release == "c" {
				r.Status = 500
			}
			all = append(all, r)
		}
		if slices.Contains([]string{unsignedHost, contentAddressedHost, foreignHost}, h.name) {
			all = append(all, recipe{Host: h.name, Label: label("d"), Port: h.port, Status: 200, Seconds: seconds})
		}
	}
	return all
}

// addBadSystems gives release d what no host may run: an unsigned system, an unsigned one
// that is named by its content, and the signed system of another host.
func (d *demo) addBadSystems() error {
	var result struct {
		Rewrites map[string]string `json:"rewrites"`
	}
	original := d.systems["d"][contentAddressedHost].String()
	out, err := d.nixOutput("nix", "store", "make-content-addressed", "--store", d.builder(), "--json", original)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(out, &result); err != nil {
		return fmt.Errorf("nix store make-content-addressed: %w in %q", err, out)
	}
	copied, err := nix.ParseStorePath(result.Rewrites[original])
	if err != nil {
		return fmt.Errorf("nix store make-content-addressed: %w", err)
	}
	d.systems.add("d", contentAddressedHost, copied)
	d.systems.add("d", foreignReceiver, d.systems["d"][foreignHost])
	for host, path := range d.systems["d"] {
		d.systems.add("d-unchecked", host, path)
	}
	for host, path := range d.systems["b"] {
		d.systems.add("back-to-b", host, path)
	}
	return nil
}

// storePaths are the systems as the renderer takes them.
func (s systems) storePaths() map[string]map[string]string {
	all := make(map[string]map[string]string, len(s))
	for release, hosts := range s {
		all[release] = make(map[string]string, len(hosts))
		for host, path := range hosts {
			all[release][host] = path.String()
		}
	}
	return all
}

func (d *demo) builder() string { return d.path("builder") }

func (d *demo) cacheDir() string { return d.path("cache") }

func (d *demo) makeSigningKey() error {
	conf := "sandbox = false\nbuild-users-group =\nexperimental-features = nix-command\nsubstituters =\n"
	if err := os.WriteFile(d.path("nix", "nix.conf"), []byte(conf), 0o600); err != nil {
		return err
	}
	secret, public := d.path("nix", "cache.sec"), d.path("nix", "cache.pub")
	if err := d.nixRun("nix-store", "--generate-binary-cache-key", "cache.example.org-1", secret, public); err != nil {
		return err
	}
	data, err := os.ReadFile(public)
	if err != nil {
		return err
	}
	d.key = signingKey{secretFile: secret, public: strings.TrimSpace(string(data))}
	return nil
}

// nixBuild builds the recipes and returns the paths by name.
func (d *demo) nixBuild(recipes []recipe) (map[string]nix.StorePath, error) {
	spec, err := json.Marshal(map[string]any{"platform": platform(), "systems": recipes})
	if err != nil {
		return nil, err
	}
	input, expression := d.path("nix", "systems.json"), d.path("nix", "systems.nix")
	if err := errors.Join(os.WriteFile(input, spec, 0o600), os.WriteFile(expression, systemsNix, 0o600)); err != nil {
		return nil, err
	}
	out, err := d.nixOutput("nix-build", "--store", d.builder(), expression, "--argstr", "spec", input, "--no-out-link",
		"--max-jobs", "auto",
		// A store with another root is built in a namespace that has nothing else.
		"--option", "sandbox-paths", "/bin /usr /lib /lib64")
	if err != nil {
		return nil, err
	}
	built := make(map[string]nix.StorePath, len(recipes))
	for line := range strings.Lines(string(out)) {
		path, err := nix.ParseStorePath(strings.TrimSpace(line))
		if err != nil {
			return nil, fmt.Errorf("nix-build: %w", err)
		}
		_, name, _ := strings.Cut(strings.TrimPrefix(path.String(), nix.StoreDir+"/"), "-")
		built[name] = path
	}
	for _, r := range recipes {
		if built[r.name()] == "" {
			return nil, fmt.Errorf("nix-build did not say where %s is", r.name())
		}
	}
	return built, nil
}

// fillCache uploads every system. Signatures travel along with the paths that have one.
func (d *demo) fillCache() error {
	var paths []string
	for release, hosts := range d.systems {
		if release == installed {
			continue
		}
		for _, path := range hosts {
			paths = append(paths, path.String())
		}
	}
	slices.Sort(paths)
	return d.nixRun("nix", append([]string{"copy", "--from", d.builder(), "--to", "file://" + d.cacheDir()}, slices.Compact(paths)...)...)
}

func (d *demo) nixRun(program string, args ...string) error {
	_, err := d.nixOutput(program, args...)
	return err
}

func (d *demo) nixOutput(program string, args ...string) ([]byte, error) {
	return nixCommand(d.ctx, d.environment(), program, args...)
}

func nixCommand(ctx context.Context, env []string, program string, args ...string) ([]byte, error) {
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = env, &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s %s: %w\n%s", program, strings.Join(args, " "), err, stderr.String())
	}
	return stdout.Bytes(), nil
}
