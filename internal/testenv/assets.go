// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package testenv

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

const (
	assetsVariable = "KUBEBUILDER_ASSETS"
	assetsTarget   = "make envtest-assets"
	module         = "github.com/nixfleet/nixfleet"
)

// findAssets returns the directory with kube-apiserver and etcd: the one that
// KUBEBUILDER_ASSETS names, else bin at the root of the repository.
func findAssets() (string, error) {
	directory := os.Getenv(assetsVariable)
	if directory == "" {
		root, err := findRoot()
		if err != nil {
			return "", err
		}
		directory = filepath.Join(root, "bin")
	}
	for _, program := range []string{"kube-apiserver", "etcd"} {
		if _, err := os.Stat(filepath.Join(directory, program)); err != nil {
			return "", fmt.Errorf("the tests need a real API server: %w; run %q, or set %s to a directory with kube-apiserver and etcd",
				err, assetsTarget, assetsVariable)
		}
	}
	return directory, nil
}

// findRoot looks upward from the working directory, which is that of the package under
// test. The other modules of the repository have a go.mod of their own: only the one
// of this module counts.
func findRoot() (string, error) {
	start, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for directory := start; ; directory = filepath.Dir(directory) {
		data, err := os.ReadFile(filepath.Join(directory, "go.mod"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		if bytes.HasPrefix(data, []byte("module "+module+"\n")) {
			return directory, nil
		}
		if directory == filepath.Dir(directory) {
			return "", fmt.Errorf("%s is not in a checkout of %s; set %s to a directory with kube-apiserver and etcd", start, module, assetsVariable)
		}
	}
}
