// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package nixtest

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/nixfleet/nixfleet/internal/nix"
)

//go:embed closure.nix
var closureNix []byte

// World is a build machine, its keys and a binary cache. Its methods fail the test when
// they cannot do what they are asked. They may be called from several goroutines.
type World struct {
	t       testing.TB
	dir     string
	conf    string
	builder string
	cache   *Cache

	mu   sync.Mutex
	keys map[string]Key
	next int
}

// Key is a key that signs store paths.
type Key struct {
	// Name is the name of the key.
	Name string

	// Public is the public key as Nix prints it.
	Public string

	// SecretFile is the file of the secret key.
	SecretFile string
}

// New makes a world that goes away with the test. The test fails if Nix is not installed.
func New(t testing.TB) *World {
	t.Helper()
	for _, program := range []string{"nix", "nix-build", "nix-env", "nix-store"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Fatalf("This test needs Nix: %v. Install it, on Debian with: apt-get install nix-bin", err)
		}
	}
	dir := t.TempDir()
	// Directories in a store are read-only, so that the test could not remove them.
	t.Cleanup(func() { makeWritable(t, dir) })
	w := &World{
		t: t, dir: dir, keys: make(map[string]Key),
		conf: filepath.Join(dir, "conf"), builder: filepath.Join(dir, "builder"),
	}
	w.mkdir(w.conf)
	w.mkdir(filepath.Join(dir, "home"))
	w.write(filepath.Join(w.conf, "nix.conf"), "sandbox = false\nbuild-users-group =\nsubstituters =\n")
	w.write(filepath.Join(dir, "closure.nix"), string(closureNix))
	w.cache = w.NewCache()
	return w
}

// BuildSystem builds the system on the build machine.
func (w *World) BuildSystem(spec Spec) nix.StorePath {
	w.t.Helper()
	data, err := spec.describe()
	if err != nil {
		w.t.Fatal(err)
	}
	input := filepath.Join(w.dir, fmt.Sprintf("spec-%d.json", w.number()))
	w.write(input, string(data))
	out := w.run("nix-build", "--store", w.builder, filepath.Join(w.dir, "closure.nix"),
		"--argstr", "spec", input, "--no-out-link",
		// A store with another root is built in a namespace that has nothing else.
		"--option", "sandbox-paths", "/bin /usr /lib /lib64")
	return w.parse(strings.TrimSpace(out))
}

// BuilderRoot is the root of the build machine's store.
func (w *World) BuilderRoot() string { return w.builder }

// Closure returns every path that the paths need on the build machine, themselves
// included.
func (w *World) Closure(paths ...nix.StorePath) []nix.StorePath {
	w.t.Helper()
	args := []string{"--store", w.builder, "--query", "--requisites"}
	var all []nix.StorePath
	for _, line := range strings.Fields(w.run("nix-store", append(args, toStrings(paths)...)...)) {
		all = append(all, w.parse(line))
	}
	return all
}

// Key returns the key of that name and makes it if it is new.
func (w *World) Key(name string) Key {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if key, ok := w.keys[name]; ok {
		return key
	}
	n := len(w.keys)
	secret := filepath.Join(w.dir, fmt.Sprintf("key-%d.sec", n))
	public := filepath.Join(w.dir, fmt.Sprintf("key-%d.pub", n))
	w.run("nix-store", "--generate-binary-cache-key", name, secret, public)
	data, err := os.ReadFile(public)
	if err != nil {
		w.t.Fatal(err)
	}
	key := Key{Name: name, Public: strings.TrimSpace(string(data)), SecretFile: secret}
	w.keys[name] = key
	return key
}

// ImpostorKey makes another key of a name that may be taken, which Key does not return.
func (w *World) ImpostorKey(name string) Key {
	w.t.Helper()
	impostor := w.Key(fmt.Sprintf("%s-impostor-%d", name, w.number()))
	_, public, _ := strings.Cut(impostor.Public, ":")
	secret, err := os.ReadFile(impostor.SecretFile)
	if err != nil {
		w.t.Fatal(err)
	}
	_, data, _ := strings.Cut(string(secret), ":")
	w.write(impostor.SecretFile, name+":"+data)
	return Key{Name: name, Public: name + ":" + public, SecretFile: impostor.SecretFile}
}

// HostRoot makes an empty root for a host.
func (w *World) HostRoot() string {
	w.t.Helper()
	root := filepath.Join(w.dir, fmt.Sprintf("host-%d", w.number()))
	w.mkdir(root)
	return root
}

// Options let nix.NewStore and nix.NewProfile run without the configuration of this
// machine.
func (w *World) Options() []nix.Option {
	return []nix.Option{nix.WithConfDir(w.conf)}
}

// ConfDir is the directory of nix.conf that Options point to.
func (w *World) ConfDir() string { return w.conf }

// Cache is the world's first binary cache.
func (w *World) Cache() *Cache { return w.cache }

// PushSigned is Cache.PushSigned for the first cache.
func (w *World) PushSigned(key Key, paths ...nix.StorePath) {
	w.t.Helper()
	w.cache.PushSigned(key, paths...)
}

// PushUnsigned is Cache.PushUnsigned for the first cache.
func (w *World) PushUnsigned(paths ...nix.StorePath) {
	w.t.Helper()
	w.cache.PushUnsigned(paths...)
}

// PushContentAddressed is Cache.PushContentAddressed for the first cache.
func (w *World) PushContentAddressed(path nix.StorePath) nix.StorePath {
	w.t.Helper()
	return w.cache.PushContentAddressed(path)
}

// ServeCache serves the first cache and returns its URL.
func (w *World) ServeCache() string {
	w.t.Helper()
	return w.cache.Serve()
}

// CopyToHost puts a closure into the store of the host at root as if it had been built
// there: valid, and without a signature.
func (w *World) CopyToHost(root string, path nix.StorePath) {
	w.t.Helper()
	w.nix("copy", "--no-check-sigs", "--from", w.builder, "--to", root, path.String())
}

// CollectGarbage removes what has no root from the store of the host at root.
func (w *World) CollectGarbage(root string) {
	w.t.Helper()
	w.run("nix-store", "--store", root, "--gc")
}

func (w *World) contentAddress(path nix.StorePath) nix.StorePath {
	w.t.Helper()
	var result struct {
		Rewrites map[string]string `json:"rewrites"`
	}
	out := w.nix("store", "make-content-addressed", "--store", w.builder, "--json", path.String())
	if err := json.Unmarshal([]byte(out), &result); err != nil {
		w.t.Fatalf("nix store make-content-addressed: %v in %q", err, out)
	}
	return w.parse(result.Rewrites[path.String()])
}

// nix runs an experimental command.
func (w *World) nix(args ...string) string {
	w.t.Helper()
	return w.run("nix", append([]string{"--extra-experimental-features", "nix-command"}, args...)...)
}

func (w *World) run(program string, args ...string) string {
	w.t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(w.t.Context(), program, args...)
	cmd.Env = append(os.Environ(),
		"HOME="+filepath.Join(w.dir, "home"), "NIX_CONF_DIR="+w.conf, "NIX_USER_CONF_FILES=", "NIX_CONFIG=", "NIX_REMOTE=",
		"XDG_CACHE_HOME="+filepath.Join(w.dir, "home/cache"))
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		w.t.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, stderr.String())
	}
	return stdout.String()
}

func (w *World) parse(s string) nix.StorePath {
	w.t.Helper()
	path, err := nix.ParseStorePath(s)
	if err != nil {
		w.t.Fatal(err)
	}
	return path
}

func (w *World) number() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.next++
	return w.next
}

func (w *World) mkdir(dir string) {
	w.t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		w.t.Fatal(err)
	}
}

func (w *World) write(name, text string) {
	w.t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

func makeWritable(t testing.TB, dir string) {
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.IsDir() {
			return err
		}
		return os.Chmod(path, 0o700)
	})
	if err != nil {
		t.Errorf("make the test's stores removable: %v", err)
	}
}

func toStrings(paths []nix.StorePath) []string {
	s := make([]string, len(paths))
	for n, path := range paths {
		s[n] = path.String()
	}
	return s
}
