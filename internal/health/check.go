// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package health

import (
	"encoding/json"
	"fmt"
	"net"
	"regexp"
	"strconv"
	"strings"
	"time"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

const (
	maxChecks      = 64
	maxName        = 63
	defaultTimeout = time.Minute
	maxTimeout     = 30 * time.Minute

	// maxListed is how many units or labels a check may name.
	maxListed = 32

	typeHTTP    = "http"
	typeTCP     = "tcp"
	typeExec    = "exec"
	typeSystemd = "systemd"
	typeLaunchd = "launchd"
)

var (
	// unitPattern and labelPattern are those of the API.
	unitPattern  = regexp.MustCompile(`^[A-Za-z0-9:_.\\@-]{1,245}\.(service|socket|target|timer|mount|path|device|slice|scope|automount|swap)$`)
	labelPattern = regexp.MustCompile(`^[A-Za-z0-9._-]{1,255}$`)
	userPattern  = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_-]{0,30}$`)
)

// Check is a health check. The field named like its type has its settings.
type Check struct {
	// Name tells checks apart.
	Name string

	// Type is http, tcp, exec, systemd or launchd. A check of any other type fails.
	Type string

	// Timeout is how long it may fail before it counts. Default: one minute.
	Timeout time.Duration

	HTTP    *HTTP
	TCP     *TCP
	Exec    *Exec
	Systemd *Systemd
	Launchd *Launchd

	// FailedUnits is set in the checks that NewlyFailed and UnitWatch make, and cannot
	// stand in a file.
	FailedUnits *FailedUnits

	// LoopbackOnly refuses addresses but those of this machine's loopback.
	LoopbackOnly bool
}

// HTTP is a GET request that passes with the right status. Redirects are not followed.
type HTTP struct {
	URL string `json:"url"`

	// ExpectedStatus is the status code that passes. Default: 200.
	ExpectedStatus int `json:"expectedStatus"`

	SkipTLSVerify bool `json:"skipTLSVerify"`
}

// TCP is a connection that has to be accepted.
type TCP struct {
	// Address is host:port.
	Address string `json:"address"`
}

// Exec is a command that passes with exit code 0.
type Exec struct {
	// Argv begins with a program in the store. No shell reads it.
	Argv []string `json:"argv"`

	// User is the user of the host that the command runs as. Default: a user that
	// systemd makes for it, which may read what everybody may and write nothing.
	User string `json:"user"`
}

// Systemd passes when all units are active.
type Systemd struct {
	// Units are names with their suffix, such as nginx.service.
	Units []string `json:"units"`
}

// Launchd passes when all services of the system domain run.
type Launchd struct {
	// Labels are their labels, such as org.nixos.nix-daemon.
	Labels []string `json:"labels"`
}

type fileCheck struct {
	Name           string   `json:"name"`
	Type           string   `json:"type"`
	TimeoutSeconds int64    `json:"timeoutSeconds"`
	HTTP           *HTTP    `json:"http"`
	TCP            *TCP     `json:"tcp"`
	Exec           *Exec    `json:"exec"`
	Systemd        *Systemd `json:"systemd"`
	Launchd        *Launchd `json:"launchd"`
}

// ParseFile reads the health checks that a system carries. Fields that it does not know
// are left out; one bad check spoils the file, for nobody knows what it was to watch.
func ParseFile(data []byte) ([]Check, error) {
	var file struct {
		Checks []fileCheck `json:"checks"`
	}
	if err := json.Unmarshal(data, &file); err != nil {
		return nil, fmt.Errorf("read health checks: %w", err)
	}
	if len(file.Checks) > maxChecks {
		return nil, fmt.Errorf("read health checks: there are %d, at most %d are allowed", len(file.Checks), maxChecks)
	}
	seen := make(map[string]bool, len(file.Checks))
	checks := make([]Check, 0, len(file.Checks))
	for i, f := range file.Checks {
		check, err := f.check()
		if err == nil && seen[f.Name] {
			err = fmt.Errorf("the name is taken")
		}
		if err != nil {
			return nil, fmt.Errorf("read health check %d %s: %w", i, shorten(strconv.Quote(f.Name)), err)
		}
		seen[f.Name] = true
		checks = append(checks, check)
	}
	return checks, nil
}

func (f fileCheck) check() (Check, error) {
	timeout := time.Duration(f.TimeoutSeconds) * time.Second
	if f.TimeoutSeconds == 0 {
		timeout = defaultTimeout
	}
	switch {
	case f.Name == "" || len(f.Name) > maxName:
		return Check{}, fmt.Errorf("a name has 1 to %d bytes", maxName)
	case f.Type == "":
		return Check{}, fmt.Errorf("it has no type")
	case f.TimeoutSeconds < 0 || f.TimeoutSeconds > int64(maxTimeout/time.Second):
		return Check{}, fmt.Errorf("timeoutSeconds is %d, expected 1 to %d", f.TimeoutSeconds, maxTimeout/time.Second)
	}
	if err := f.settings(); err != nil {
		return Check{}, err
	}
	return Check{
		Name: f.Name, Type: f.Type, Timeout: timeout,
		HTTP: f.HTTP, TCP: f.TCP, Exec: f.Exec, Systemd: f.Systemd, Launchd: f.Launchd,
	}, nil
}

// settings says what is wrong with the field named like the type. A type that is not
// known has none: its check fails when it is run.
func (f fileCheck) settings() error {
	switch {
	case f.Type == typeHTTP && (f.HTTP == nil || f.HTTP.URL == ""):
		return fmt.Errorf("http.url is not set")
	case f.Type == typeTCP && (f.TCP == nil || f.TCP.Address == ""):
		return fmt.Errorf("tcp.address is not set")
	case f.Type == typeExec && (f.Exec == nil || len(f.Exec.Argv) == 0):
		return fmt.Errorf("exec.argv is not set")
	case f.Type == typeExec && f.Exec.User != "" && !userPattern.MatchString(f.Exec.User):
		return fmt.Errorf("exec.user %s is not the name of a user", shorten(strconv.Quote(f.Exec.User)))
	case f.Type == typeSystemd && f.Systemd == nil:
		return fmt.Errorf("systemd.units is not set")
	case f.Type == typeSystemd:
		return listed("systemd.units", f.Systemd.Units, unitPattern)
	case f.Type == typeLaunchd && f.Launchd == nil:
		return fmt.Errorf("launchd.labels is not set")
	case f.Type == typeLaunchd:
		return listed("launchd.labels", f.Launchd.Labels, labelPattern)
	default:
		return nil
	}
}

func listed(field string, names []string, form *regexp.Regexp) error {
	if len(names) == 0 || len(names) > maxListed {
		return fmt.Errorf("%s has %d names, expected 1 to %d", field, len(names), maxListed)
	}
	for _, name := range names {
		if !form.MatchString(name) {
			return fmt.Errorf("%s: %s cannot be one", field, shorten(strconv.Quote(name)))
		}
	}
	return nil
}

// FromSpec brings the health checks of a Host object into the common form. They reach
// loopback only.
func FromSpec(checks []nfv1.HealthCheck) []Check {
	out := make([]Check, 0, len(checks))
	for _, c := range checks {
		check := Check{Name: c.Name, Type: string(c.Type), Timeout: time.Duration(c.TimeoutSeconds) * time.Second, LoopbackOnly: true}
		if c.HTTP != nil {
			check.HTTP = fromHTTP(*c.HTTP)
		}
		if c.TCP != nil {
			check.TCP = &TCP{Address: loopback(c.TCP.Port)}
		}
		if c.Systemd != nil {
			check.Systemd = &Systemd{Units: c.Systemd.Units}
		}
		if c.Launchd != nil {
			check.Launchd = &Launchd{Labels: c.Launchd.Labels}
		}
		out = append(out, check)
	}
	return out
}

func fromHTTP(c nfv1.HTTPCheck) *HTTP {
	scheme := strings.ToLower(string(c.Scheme))
	if scheme == "" {
		scheme = "http"
	}
	path := c.Path
	if path == "" {
		path = "/"
	}
	// The certificate is rarely for 127.0.0.1.
	return &HTTP{URL: scheme + "://" + loopback(c.Port) + path, ExpectedStatus: int(c.ExpectedStatus), SkipTLSVerify: true}
}

func loopback(port int32) string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port)))
}
