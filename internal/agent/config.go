// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package agent

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	yamlnode "go.yaml.in/yaml/v3"
	"sigs.k8s.io/yaml"

	"github.com/nixfleet/nixfleet/internal/health"
	"github.com/nixfleet/nixfleet/internal/nix"
)

// Config is the configuration of an agent: one file in YAML or JSON. Unknown keys are
// refused, by name and line.
type Config struct {
	// Server is the URL of the agent gateway, such as https://fleet.example.org:8443.
	Server string `json:"server"`

	// Namespace is the namespace of the Host. Default: default.
	Namespace string `json:"namespace,omitempty"`

	// HostName is the name of the Host. Default: the name of the machine.
	HostName string `json:"hostName,omitempty"`

	// CAFile holds the certificates that the gateway's certificate must lead to, in PEM.
	// No others are trusted.
	CAFile string `json:"caFile"`

	// IdentityKeyFile is the private key of the host in OpenSSH format. It is made if it
	// does not exist. Default: identity.key in the state directory.
	IdentityKeyFile string `json:"identityKeyFile,omitempty"`

	// TrustedPublicKeys are the keys whose signature on a system is obeyed. There is no
	// default: this is what keeps a hijacked control plane from bringing its own.
	TrustedPublicKeys []string `json:"trustedPublicKeys"`

	// SubstitutionKeys are further keys that the rest of a closure may be signed with.
	SubstitutionKeys []string `json:"substitutionKeys,omitempty"`

	// Root is where the host's file system begins. Default: /.
	Root string `json:"root,omitempty"`

	// StateDir is where the agent keeps its journal. Default: var/lib/nixfleet below Root.
	StateDir string `json:"stateDir,omitempty"`

	// NixConfDir is the directory of nix.conf. Default: Nix's own.
	NixConfDir string `json:"nixConfDir,omitempty"`

	// Platform is the Nix system double of the machine. Default: this program's.
	Platform string `json:"platform,omitempty"`

	// Tags are the host's own tags, for people.
	Tags []string `json:"tags,omitempty"`

	// AllowMissingHostFile accepts systems without /etc/nixfleet/host.json.
	AllowMissingHostFile bool `json:"allowMissingHostFile,omitempty"`

	// IgnoreFailedUnits are patterns of names of units that may fail, such as
	// backup-*.service: they neither condemn a system nor make the host unhealthy.
	IgnoreFailedUnits []string `json:"ignoreFailedUnits,omitempty"`

	// DryRun does everything but activate: orders are fetched and judged, and refused in
	// the end, with what would have been done.
	DryRun bool `json:"dryRun,omitempty"`

	// HeartbeatSeconds is how often the Lease is renewed. Default: 60.
	HeartbeatSeconds int `json:"heartbeatSeconds,omitempty"`

	// MetricsPort is the port of 127.0.0.1 that metrics are served at, for Prometheus.
	// Default: 0, none.
	MetricsPort int `json:"metricsPort,omitempty"`

	// LogLevel is debug, info, warn or error. Default: info.
	LogLevel string `json:"logLevel,omitempty"`

	// LogFormat is text or json. Default: text.
	LogFormat string `json:"logFormat,omitempty"`
}

// UnknownKeysError names the keys of a configuration that this agent does not know. All
// else about it is in order.
type UnknownKeysError struct {
	// Keys are the keys with their lines, such as: servr (line 3).
	Keys []string
}

// Error names the keys.
func (e *UnknownKeysError) Error() string {
	return "unknown keys: " + strings.Join(e.Keys, ", ") + "; they are misspelt, or for another version of the agent"
}

// readConfig reads a configuration file, puts the flags over it and completes it with the
// defaults. The error names everything that is wrong with it. With an *UnknownKeysError the
// rest of the configuration is answered.
func readConfig(path string, flags *configFlags) (Config, error) {
	if path == "" {
		return parseConfig(nil, flags.override)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return Config{}, fmt.Errorf("read the configuration: %w", err)
	}
	c, err := parseConfig(data, flags.override)
	if err != nil {
		return c, fmt.Errorf("configuration %s: %w", path, err)
	}
	return c, nil
}

func parseConfig(data []byte, override func(*Config)) (Config, error) {
	var c Config
	read := func(data []byte, into any) error { return yaml.UnmarshalStrict(data, into) }
	unknown, err := unknownKeys(data)
	if err != nil {
		return Config{}, err
	}
	if len(unknown) > 0 {
		read = func(data []byte, into any) error { return yaml.Unmarshal(data, into) }
	}
	if err := read(data, &c); err != nil {
		return Config{}, errors.Join(err, refuseUnknown(unknown))
	}
	override(&c)
	if err := c.complete(); err != nil {
		return Config{}, err
	}
	if err := c.validate(); err != nil {
		return Config{}, errors.Join(err, refuseUnknown(unknown))
	}
	return c, refuseUnknown(unknown)
}

func refuseUnknown(unknown []string) error {
	if len(unknown) == 0 {
		return nil
	}
	return &UnknownKeysError{Keys: unknown}
}

// unknownKeys are the keys that no field of Config has, with their lines.
func unknownKeys(data []byte) ([]string, error) {
	var doc yamlnode.Node
	if err := yamlnode.Unmarshal(data, &doc); err != nil {
		return nil, err
	}
	if len(doc.Content) == 0 || doc.Content[0].Kind != yamlnode.MappingNode {
		return nil, nil // empty, or what is no mapping and is refused as such
	}
	known := map[string]bool{}
	for field := range reflect.TypeFor[Config]().Fields() {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		known[name] = true
	}
	var unknown []string
	pairs := doc.Content[0].Content
	for i := 0; i+1 < len(pairs); i += 2 {
		if key := pairs[i]; !known[key.Value] {
			unknown = append(unknown, fmt.Sprintf("%s (line %d)", shorten(strconv.Quote(key.Value), 80), key.Line))
		}
	}
	return unknown, nil
}

func (c *Config) complete() error {
	setDefault(&c.Namespace, "default")
	setDefault(&c.Root, "/")
	setDefault(&c.StateDir, filepath.Join(c.Root, "var/lib/nixfleet"))
	setDefault(&c.IdentityKeyFile, filepath.Join(c.StateDir, "identity.key"))
	setDefault(&c.Platform, platforms[runtime.GOOS+"/"+runtime.GOARCH])
	setDefault(&c.LogLevel, "info")
	setDefault(&c.LogFormat, "text")
	if c.HeartbeatSeconds == 0 {
		c.HeartbeatSeconds = 60
	}
	if c.HostName == "" {
		name, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("hostName is not set and the machine's name is not known: %w", err)
		}
		c.HostName = name
	}
	return nil
}

func setDefault(s *string, value string) {
	if *s == "" {
		*s = value
	}
}

var platforms = map[string]string{
	"linux/amd64": "x86_64-linux", "linux/arm64": "aarch64-linux",
	"darwin/amd64": "x86_64-darwin", "darwin/arm64": "aarch64-darwin",
}

var (
	nameForm  = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`)
	tagForm   = regexp.MustCompile(`^[[:graph:]]([[:print:]]{0,61}[[:graph:]])?$`)
	levelForm = regexp.MustCompile(`^(debug|info|warn|error)$`)
)

// validate names everything that is wrong, so that one look is enough.
func (c *Config) validate() error {
	var errs []error
	wrong := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	u, err := url.Parse(c.Server)
	wrong(err == nil && u.Scheme == "https" && u.Host != "" && u.RawQuery == "" && u.User == nil,
		"server must be an https URL such as https://fleet.example.org:8443, not %q", c.Server)
	wrong(c.CAFile != "", "caFile is required: the certificate that the gateway's certificate must lead to")
	wrong(nameForm.MatchString(c.Namespace) && len(c.Namespace) <= 63, "namespace %q is not the name of a namespace", c.Namespace)
	wrong(nameForm.MatchString(c.HostName) && len(c.HostName) <= 200, "hostName %q cannot be the name of a Host: lower-case letters, digits, '-' and '.'", c.HostName)
	for _, p := range []struct{ key, path string }{
		{"root", c.Root},
		{"stateDir", c.StateDir},
		{"identityKeyFile", c.IdentityKeyFile},
		{"caFile", c.CAFile},
		{"nixConfDir", c.NixConfDir},
	} {
		wrong(p.path == "" || filepath.IsAbs(p.path), "%s must be an absolute path, not %q", p.key, p.path)
	}
	wrong(c.HeartbeatSeconds >= 1 && c.HeartbeatSeconds <= 3600, "heartbeatSeconds must be from 1 to 3600, not %d", c.HeartbeatSeconds)
	wrong(c.MetricsPort >= 0 && c.MetricsPort <= 65535, "metricsPort must be a port, or 0 for none, not %d", c.MetricsPort)
	wrong(levelForm.MatchString(c.LogLevel), "logLevel must be debug, info, warn or error, not %q", c.LogLevel)
	wrong(c.LogFormat == "text" || c.LogFormat == "json", "logFormat must be text or json, not %q", c.LogFormat)
	wrong(slices.Contains(slices.Collect(maps.Values(platforms)), c.Platform),
		"platform must be one of the Nix system doubles, such as x86_64-linux, not %q", c.Platform)
	wrong(len(c.Tags) <= 32, "at most 32 tags, not %d", len(c.Tags))
	for i, tag := range c.Tags {
		wrong(tagForm.MatchString(tag) && !slices.Contains(c.Tags[:i], tag), "tag %q must have 1 to 63 printable ASCII characters and stand there once", tag)
	}
	wrong(len(c.IgnoreFailedUnits) <= 64, "at most 64 ignoreFailedUnits, not %d", len(c.IgnoreFailedUnits))
	for _, pattern := range c.IgnoreFailedUnits {
		wrong(health.ValidUnitPattern(pattern), "ignoreFailedUnits: %q is not a pattern for names of units, such as backup-*.service", pattern)
	}
	for _, key := range c.TrustedPublicKeys {
		// Whatever is in the public cache would be a system for this host.
		wrong(!strings.HasPrefix(key, "cache.nixos.org-"), "trustedPublicKeys must not have the key of cache.nixos.org; put it into substitutionKeys")
	}
	if _, err := nix.ParsePublicKeys(c.TrustedPublicKeys); err != nil {
		errs = append(errs, fmt.Errorf("trustedPublicKeys: whose signature on a system is obeyed; there is no default: %w", err))
	} else if _, err := c.innerKeys(); err != nil {
		errs = append(errs, fmt.Errorf("substitutionKeys: %w", err))
	}
	return errors.Join(errs...)
}

func (c *Config) innerKeys() (nix.PublicKeys, error) {
	return nix.ParsePublicKeys(append(append([]string{}, c.TrustedPublicKeys...), c.SubstitutionKeys...))
}

func (c *Config) heartbeat() time.Duration { return time.Duration(c.HeartbeatSeconds) * time.Second }
