// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package nix

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"path/filepath"
	"strings"
	"unicode"
)

// Files of a system closure.
const (
	switchProgram        = "bin/switch-to-configuration"
	hostIdentityFile     = "etc/nixfleet/host.json"
	healthChecksFile     = "etc/nixfleet/health-checks.json"
	interfaceVersionFile = "init-interface-version"
	labelFile            = "nixos-version"
	platformFile         = "system"
)

const (
	maxWordFile = 4 << 10
	maxJSONFile = 1 << 20
)

// AnyHost is the name in a host identity that fits every host.
const AnyHost = "*"

// HostIdentity is whom a system was made for.
type HostIdentity struct {
	// Name is the name of the host, or AnyHost.
	Name string `json:"name"`

	// Platform is the platform of the host, such as x86_64-linux.
	Platform string `json:"platform"`
}

// Fits reports whether a system with this identity may run on the host: the names are
// equal or the identity is for any host, and the platforms are equal.
func (i HostIdentity) Fits(name, platform string) bool {
	if i.Name == "" || i.Platform == "" {
		return false
	}
	return (i.Name == AnyHost || i.Name == name) && i.Platform == platform
}

// Closure reads what a system says about itself. Files are read at their physical place;
// links are followed inside the host's root and inside the store, never outside. What is
// read was made by whoever built the system: verify its signature first. The errors wrap
// ErrNotValid if the closure is not there at all.
type Closure struct {
	root string
	path StorePath
}

// OpenClosure returns the closure of the toplevel path in the store below root. Nothing is
// read yet.
func OpenClosure(root string, path StorePath) Closure {
	return Closure{root: root, path: path}
}

// Path is the toplevel.
func (c Closure) Path() StorePath { return c.path }

// HostIdentity reads whom the system was made for. The error wraps fs.ErrNotExist if the
// system does not say.
func (c Closure) HostIdentity() (HostIdentity, error) {
	data, err := c.read(hostIdentityFile, maxJSONFile)
	if err != nil {
		return HostIdentity{}, err
	}
	var identity HostIdentity
	decoder := json.NewDecoder(bytes.NewReader(data))
	if err := decoder.Decode(&identity); err != nil {
		return HostIdentity{}, fmt.Errorf("%s of %s: %w", hostIdentityFile, c.path, err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return HostIdentity{}, fmt.Errorf("%s of %s: there is something behind the object", hostIdentityFile, c.path)
	}
	if identity.Name == "" || identity.Platform == "" {
		return HostIdentity{}, fmt.Errorf("%s of %s: name and platform have to be set", hostIdentityFile, c.path)
	}
	return identity, nil
}

// HasSwitchToConfiguration reports whether the system has an executable program to
// activate it. Images built to be replaced as a whole have none.
func (c Closure) HasSwitchToConfiguration() (bool, error) {
	r, err := c.open()
	if err != nil {
		return false, err
	}
	mode, err := c.mode(r, switchProgram)
	if err := errors.Join(err, r.close()); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		return false, err
	}
	return mode.IsRegular() && mode.Perm()&0o111 != 0, nil
}

func (c Closure) mode(r *resolver, file string) (fs.FileMode, error) {
	resolved, err := r.resolve(c.logical(file))
	if err != nil {
		return 0, err
	}
	stat, err := r.root.Lstat(strings.TrimPrefix(resolved, "/"))
	if err != nil {
		return 0, err
	}
	return stat.Mode(), nil
}

// InitInterfaceVersion is the version of the interface between the system and its init; a
// system with another one can only be booted into. Empty if the system does not say.
func (c Closure) InitInterfaceVersion() (string, error) { return c.word(interfaceVersionFile) }

// Label is the system's label for people. It is not unique. Empty if the system has none.
func (c Closure) Label() (string, error) { return c.word(labelFile) }

// Platform is the platform that the system was built for, such as x86_64-linux. Empty if
// the system does not say.
func (c Closure) Platform() (string, error) { return c.word(platformFile) }

// HealthChecks reads the health checks of the system. Nil if it has none.
func (c Closure) HealthChecks() ([]byte, error) {
	data, err := c.read(healthChecksFile, maxJSONFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return data, err
}

// SwitchProgram is where the program that activates the system lies on this machine's
// file system. Its own path tells it which system it belongs to, so links are not
// followed.
func (c Closure) SwitchProgram() string {
	return filepath.Join(c.root, c.path.String(), switchProgram)
}

// word reads a file that holds one line.
func (c Closure) word(file string) (string, error) {
	data, err := c.read(file, maxWordFile)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	word := strings.TrimSpace(string(data))
	if strings.ContainsFunc(word, unicode.IsControl) || word != strings.ToValidUTF8(word, "") {
		return "", fmt.Errorf("%s of %s: it is not a line of text", file, c.path)
	}
	return word, nil
}

func (c Closure) read(file string, limit int64) ([]byte, error) {
	r, err := c.open()
	if err != nil {
		return nil, err
	}
	data, err := r.readFile(c.logical(file), limit)
	if err := errors.Join(err, r.close()); err != nil {
		return nil, err
	}
	return data, nil
}

// open makes sure that the closure is there, so that a missing file means that the system
// has none, and not that there is no system.
func (c Closure) open() (*resolver, error) {
	r, err := openResolver(c.root)
	if err == nil {
		if _, err = r.resolve(c.path.String()); err != nil {
			err = errors.Join(err, r.close())
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read %s below %s: %w", c.path, c.root, ErrNotValid)
	}
	return r, err
}

func (c Closure) logical(file string) string {
	return path.Join(c.path.String(), file)
}
