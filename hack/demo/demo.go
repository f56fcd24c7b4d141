// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

// demo is everything that one run has made.
type demo struct {
	//nolint:containedctx // One run, one context; it ends when a process dies by itself.
	ctx  context.Context
	fail context.CancelCauseFunc

	// keep leaves the fleet running when the demo has ended.
	keep bool

	dir     string
	binDir  string
	samples *samples
	ports   ports
	key     signingKey
	hosts   []*host
	systems systems

	processes    []*process
	controlPlane *process
	ready        *readiness
	api          client.WithWatch
}

func newDemo(ctx context.Context) (*demo, error) {
	binDir, err := filepath.Abs("bin")
	if err != nil {
		return nil, err
	}
	loaded, err := loadSamples(os.DirFS(filepath.Join("config", "samples")))
	if err != nil {
		return nil, err
	}
	// Short, because the path of a Unix socket may have 108 characters.
	dir, err := os.MkdirTemp("", "nixfleet-demo-")
	if err != nil {
		return nil, err
	}
	d := &demo{dir: dir, binDir: binDir, samples: loaded}
	d.ctx, d.fail = context.WithCancelCause(ctx)
	for _, sub := range []string{"run", "logs", "manifests", "hosts", "nix", "bin"} {
		if err := os.Mkdir(d.path(sub), 0o700); err != nil {
			return nil, errors.Join(err, os.RemoveAll(dir))
		}
	}
	return d, nil
}

// say prints a line.
func (d *demo) say(format string, args ...any) { fmt.Printf(format+"\n", args...) }

// environment is what every program gets: kubectl finds the plugin on the PATH, and Nix
// its configuration in the demo's directory and none of this machine's.
func (d *demo) environment() []string {
	keep := slices.DeleteFunc(os.Environ(), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		ours := slices.Contains([]string{"PATH", "KUBECONFIG", "HOME", "NOTIFY_SOCKET"}, name)
		return ours || strings.HasPrefix(name, "NIX_") || strings.HasPrefix(name, "XDG_")
	})
	return append(keep,
		"PATH="+d.binDir+string(os.PathListSeparator)+os.Getenv("PATH"),
		"KUBECONFIG="+d.kubeconfig(),
		"HOME="+d.path("nix", "home"),
		"NIX_CONF_DIR="+d.path("nix"), "NIX_USER_CONF_FILES=", "NIX_REMOTE=",
	)
}

func (d *demo) program(name string) string { return filepath.Join(d.binDir, name) }

func (d *demo) controlPlaneDir() string { return d.path("control-plane") }

func (d *demo) kubeconfig() string { return filepath.Join(d.controlPlaneDir(), "admin.kubeconfig") }

// connect makes a client for what the demo itself looks up.
func (d *demo) connect() error {
	config, err := clientcmd.BuildConfigFromFlags("", d.kubeconfig())
	if err != nil {
		return err
	}
	scheme := runtime.NewScheme()
	if err := nfv1.AddToScheme(scheme); err != nil {
		return err
	}
	d.api, err = client.NewWithWatch(config, client.Options{Scheme: scheme})
	return err
}

// showLogs prints the ends of the logs, for a person who was not there.
func (d *demo) showLogs() {
	for _, p := range d.processes {
		fmt.Fprintf(os.Stderr, "\n--- last lines of %s\n%s\n", p.log, p.tail(25))
	}
}

// cleanUp stops every process and removes the directory.
func (d *demo) cleanUp() error {
	var errs []error
	// The last one first: agents before the control plane that they talk to.
	for _, p := range slices.Backward(d.processes) {
		errs = append(errs, p.stop())
	}
	d.fail(nil)
	if d.ready != nil {
		errs = append(errs, d.ready.close())
	}
	return errors.Join(append(errs, removeAll(d.dir))...)
}

// removeAll removes a directory with Nix stores in it, whose directories are read-only.
func removeAll(dir string) error {
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			return os.Chmod(path, 0o700) //nolint:gosec // A directory needs it to be emptied.
		}
		return nil
	})
	return errors.Join(err, os.RemoveAll(dir))
}
