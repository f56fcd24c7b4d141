// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package health

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"time"

	"k8s.io/utils/clock"
)

const (
	maxTry     = 10 * time.Second
	retryEvery = time.Second
	maxMessage = 256
)

// Result is what a check said.
type Result struct {
	Name    string
	Healthy bool

	// Message is why it is not healthy, at most 256 bytes.
	Message string

	// Units are the units that newly failed, sorted, if this is the check for them.
	Units []string
}

// Prober runs health checks on the host whose file system begins at Root.
type Prober struct {
	// Root is where commands are looked for.
	Root string

	// Units is the service manager of the host; nil if systemd does not run it. Commands
	// are run by it, too. See NewUnitManager.
	Units UnitManager

	// Launchctl asks launchd; nil if launchd does not run the host. See NewLaunchctl.
	Launchctl Launchctl

	// IgnoreFailed are patterns of names of units that may fail, such as backup-*.service.
	IgnoreFailed []string

	// Clock times tries and timeouts. Default: the real one.
	Clock clock.WithTicker
}

// Once runs each check once, all at the same time. A try may take its check's timeout,
// at most 10 s. The results are in the order of the checks.
func (p *Prober) Once(ctx context.Context, checks []Check) []Result {
	return each(checks, func(c Check) Result { return p.try(ctx, c, c.timeout()) })
}

// UntilHealthy tries each check every second until it passes or its timeout, from now
// on, is over. It returns when all have an answer or ctx ends.
func (p *Prober) UntilHealthy(ctx context.Context, checks []Check) []Result {
	return each(checks, func(c Check) Result { return p.untilHealthy(ctx, c) })
}

func each(checks []Check, run func(Check) Result) []Result {
	results := make([]Result, len(checks))
	var wg sync.WaitGroup
	for i, c := range checks {
		wg.Go(func() { results[i] = run(c) })
	}
	wg.Wait()
	return results
}

func (p *Prober) clock() clock.WithTicker {
	if p.Clock == nil {
		return clock.RealClock{}
	}
	return p.Clock
}

func (p *Prober) untilHealthy(ctx context.Context, c Check) Result {
	if c.FailedUnits != nil && c.FailedUnits.watch == nil {
		return p.failedUnits(ctx, c)
	}
	clk := p.clock()
	end := clk.Now().Add(c.timeout())
	tick := clk.NewTicker(retryEvery)
	defer tick.Stop()
	for {
		result := p.try(ctx, c, end.Sub(clk.Now()))
		if result.Healthy || !c.known() || ctx.Err() != nil || !clk.Now().Add(retryEvery).Before(end) {
			return result
		}
		select {
		case <-ctx.Done():
			return result
		case <-tick.C():
		}
	}
}

func (c Check) timeout() time.Duration {
	if c.Timeout <= 0 {
		return defaultTimeout
	}
	return c.Timeout
}

func (c Check) known() bool {
	switch c.Type {
	case typeHTTP:
		return c.HTTP != nil
	case typeTCP:
		return c.TCP != nil
	case typeExec:
		return c.Exec != nil
	case typeSystemd:
		return c.Systemd != nil
	case typeLaunchd:
		return c.Launchd != nil
	default:
		return false
	}
}

func (p *Prober) try(ctx context.Context, c Check, timeout time.Duration) Result {
	if c.FailedUnits != nil && c.FailedUnits.watch != nil {
		ctx, cancel := context.WithTimeout(ctx, maxTry)
		defer cancel()
		return p.failedUnits(ctx, c)
	}
	if err := p.probe(ctx, c, min(timeout, maxTry)); err != nil {
		return Result{Name: c.Name, Message: shorten(err.Error())}
	}
	return Result{Name: c.Name, Healthy: true}
}

func (p *Prober) probe(ctx context.Context, c Check, timeout time.Duration) error {
	if c.known() && c.Type == typeExec {
		if c.LoopbackOnly {
			return fmt.Errorf("a command can come only from the system itself")
		}
		return p.probeExec(ctx, c, timeout) // keeps its time itself, to say so
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	switch {
	case !c.known():
		return fmt.Errorf("this agent cannot run checks of type %s", c.Type)
	case c.Type == typeHTTP:
		return probeHTTP(ctx, *c.HTTP, dialer(c.LoopbackOnly))
	case c.Type == typeTCP:
		return probeTCP(ctx, *c.TCP, dialer(c.LoopbackOnly))
	case c.Type == typeSystemd:
		return p.probeSystemd(ctx, *c.Systemd)
	default:
		return p.probeLaunchd(ctx, *c.Launchd)
	}
}

// dialer refuses at the moment of connecting, when names are resolved.
func dialer(loopbackOnly bool) *net.Dialer {
	d := &net.Dialer{}
	if loopbackOnly {
		d.Control = func(_, address string, _ syscall.RawConn) error {
			to, err := netip.ParseAddrPort(address)
			if err != nil || !to.Addr().Unmap().IsLoopback() {
				return fmt.Errorf("%s is not an address of this host's loopback", address)
			}
			return nil
		}
	}
	return d
}

func probeTCP(ctx context.Context, c TCP, d *net.Dialer) error {
	conn, err := d.DialContext(ctx, "tcp", c.Address)
	if err != nil {
		return err
	}
	return conn.Close()
}

func probeHTTP(ctx context.Context, c HTTP, d *net.Dialer) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.URL, nil)
	if err != nil {
		return err
	}
	client := &http.Client{
		// No proxy: it would answer for the host.
		Transport: &http.Transport{
			DialContext:            d.DialContext,
			DisableKeepAlives:      true,
			MaxResponseHeaderBytes: 64 << 10,
			TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: c.SkipTLSVerify}, //nolint:gosec // The check asks for it.
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	want := c.ExpectedStatus
	if want == 0 {
		want = http.StatusOK
	}
	// The body is not read.
	if err := response.Body.Close(); err != nil {
		return err
	}
	if response.StatusCode != want {
		return fmt.Errorf("%s answered with status %d instead of %d", c.URL, response.StatusCode, want)
	}
	return nil
}

func shorten(s string) string {
	s = strings.TrimRight(strings.ToValidUTF8(s, ""), "; ")
	if len(s) > maxMessage {
		s = strings.ToValidUTF8(s[:maxMessage-3], "") + "..."
	}
	return s
}
