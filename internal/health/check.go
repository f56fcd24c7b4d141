// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package health

import (
	"encoding/json"
	"fmt"
	"net"
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

	typeHTTP = "http"
	typeTCP  = "tcp"
	typeExec = "exec"
)

// Check is a health check. The field named like its type has its settings.
type Check struct {
	// Name tells checks apart.
	Name string

	// Type is http, tcp or exec. A check of any other type fails.
	Type string

	// Timeout is how long it may fail before it counts. Default: one minute.
	Timeout time.Duration

	HTTP *HTTP
	TCP  *TCP
	Exec *Exec

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
}

type fileCheck struct {
	Name           string `json:"name"`
	Type           string `json:"type"`
	TimeoutSeconds int64  `json:"timeoutSeconds"`
	HTTP           *HTTP  `json:"http"`
	TCP            *TCP   `json:"tcp"`
	Exec           *Exec  `json:"exec"`
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
	case f.Type == typeHTTP && (f.HTTP == nil || f.HTTP.URL == ""):
		return Check{}, fmt.Errorf("http.url is not set")
	case f.Type == typeTCP && (f.TCP == nil || f.TCP.Address == ""):
		return Check{}, fmt.Errorf("tcp.address is not set")
	case f.Type == typeExec && (f.Exec == nil || len(f.Exec.Argv) == 0):
		return Check{}, fmt.Errorf("exec.argv is not set")
	}
	return Check{Name: f.Name, Type: f.Type, Timeout: timeout, HTTP: f.HTTP, TCP: f.TCP, Exec: f.Exec}, nil
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
