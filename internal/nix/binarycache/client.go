// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package binarycache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"time"

	"github.com/nixfleet/nixfleet/internal/nix"
)

const (
	maxCacheInfo = 16 << 10
	maxNarinfo   = 1 << 20
	maxRedirects = 5
	userAgent    = "nixfleet"

	defaultConcurrency = 32
	defaultTimeout     = 20 * time.Second
	defaultAttempts    = 3
	baseBackoff        = 250 * time.Millisecond
)

// Client asks binary caches. It may be used by many goroutines.
type Client struct {
	http        *http.Client
	timeout     time.Duration
	attempts    int
	concurrency int
	backoff     func(attempt int) time.Duration
}

// Option changes a Client.
type Option func(*Client)

// WithTimeout sets how long one request may take, answer included. Default: 20 s.
func WithTimeout(d time.Duration) Option { return func(c *Client) { c.timeout = d } }

// WithAttempts sets how often a request is tried that fails in a way that may pass.
// Default: 3.
func WithAttempts(n int) Option { return func(c *Client) { c.attempts = max(n, 1) } }

// WithConcurrency sets how many requests one walk may have under way. Default: 32.
func WithConcurrency(n int) Option { return func(c *Client) { c.concurrency = max(n, 1) } }

// WithBackoff sets the pause before an attempt; the first pause is before attempt 1.
// Default: 250 ms, doubled each time, jittered by half.
func WithBackoff(f func(attempt int) time.Duration) Option { return func(c *Client) { c.backoff = f } }

// WithTransport sets the transport, for caches with certificates of an authority of their
// own. Default: that of net/http with the proxies of the environment.
func WithTransport(t http.RoundTripper) Option { return func(c *Client) { c.http.Transport = t } }

// NewClient returns a client.
func NewClient(opts ...Option) *Client {
	c := &Client{
		http:        &http.Client{CheckRedirect: checkRedirect},
		timeout:     defaultTimeout,
		attempts:    defaultAttempts,
		concurrency: defaultConcurrency,
		backoff:     jitteredBackoff,
	}
	c.http.Transport = newTransport(defaultConcurrency)
	for _, opt := range opts {
		opt(c)
	}
	return c
}

func newTransport(concurrency int) *http.Transport {
	return &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		TLSHandshakeTimeout: 10 * time.Second,
		MaxIdleConnsPerHost: concurrency,
		IdleConnTimeout:     30 * time.Second,
		ForceAttemptHTTP2:   true,
	}
}

func jitteredBackoff(attempt int) time.Duration {
	pause := baseBackoff << (attempt - 1)
	return pause/2 + rand.N(pause)
}

// checkRedirect follows a few redirects, and none to another scheme: from https to http
// they would take the protection away, and anything else is no cache.
func checkRedirect(next *http.Request, via []*http.Request) error {
	if len(via) > maxRedirects {
		return &redirectError{fmt.Sprintf("it redirected more than %d times", maxRedirects)}
	}
	if first := via[0].URL.Scheme; next.URL.Scheme != first {
		return &redirectError{fmt.Sprintf("it redirected from %s to %s", first, shorten(next.URL.Scheme))}
	}
	return nil
}

// CheckCache makes sure that there is a binary cache for our store at the URL. Its error
// is a *CacheError, or that of ctx.
func (c *Client) CheckCache(ctx context.Context, cache string) error {
	cache, err := nix.ParseCacheURL(cache)
	if err != nil {
		return err
	}
	data, err := c.get(ctx, cache, "/nix-cache-info", maxCacheInfo)
	if errors.Is(err, ErrMissing) {
		return &CacheError{Cache: cache, Kind: ErrInvalid, Detail: "it has no nix-cache-info; is this a binary cache?"}
	}
	if err != nil {
		return err
	}
	if err := parseCacheInfo(data); err != nil {
		return &CacheError{Cache: cache, Kind: ErrInvalid, Detail: err.Error()}
	}
	return nil
}

// Narinfo asks a cache for a path. Its error is a *CacheError, or that of ctx.
func (c *Client) Narinfo(ctx context.Context, cache string, path nix.StorePath) (Narinfo, error) {
	cache, err := nix.ParseCacheURL(cache)
	if err != nil {
		return Narinfo{}, err
	}
	data, err := c.get(ctx, cache, "/"+path.Hash()+".narinfo", maxNarinfo)
	if err != nil {
		return Narinfo{}, err
	}
	info, err := ParseNarinfo(data, path)
	if err != nil {
		return Narinfo{}, &CacheError{Cache: cache, Kind: ErrInvalid, Detail: "narinfo of " + path.String() + ": " + shorten(err.Error())}
	}
	return info, nil
}

// get asks again while the failure may pass.
func (c *Client) get(ctx context.Context, cache, file string, limit int64) ([]byte, error) {
	for attempt := 1; ; attempt++ {
		data, again, err := c.getOnce(ctx, cache, file, limit)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err == nil || !again || attempt >= c.attempts {
			return data, err
		}
		if err := pause(ctx, c.backoff(attempt)); err != nil {
			return nil, err
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

func (c *Client) getOnce(ctx context.Context, cache, file string, limit int64) (data []byte, again bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, cache+file, nil)
	if err != nil {
		return nil, false, &CacheError{Cache: cache, Kind: ErrInvalid, Detail: describe(err)}
	}
	req.Header.Set("User-Agent", userAgent)
	resp, err := c.http.Do(req)
	if err != nil {
		var redirect *redirectError
		return nil, !errors.As(err, &redirect), &CacheError{Cache: cache, Kind: ErrUnreachable, Detail: describe(err)}
	}
	defer func() {
		// So that the connection can be used again. What is left over is of no interest, nor
		// is whether it can be read.
		_, _ = io.CopyN(io.Discard, resp.Body, 4<<10)
		_ = resp.Body.Close()
	}()
	if resp.StatusCode != http.StatusOK {
		again, err := judgeStatus(cache, resp.StatusCode)
		return nil, again, err
	}
	data, err = io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return nil, true, &CacheError{Cache: cache, Kind: ErrUnreachable, Detail: describe(err)}
	}
	if int64(len(data)) > limit {
		return nil, false, &CacheError{Cache: cache, Kind: ErrInvalid, Detail: fmt.Sprintf("%s has more than %d bytes", file, limit)}
	}
	return data, false, nil
}

// judgeStatus says what a status other than 200 means, and whether to ask again.
func judgeStatus(cache string, status int) (again bool, err error) {
	switch {
	case status == http.StatusNotFound, status == http.StatusGone,
		// What S3 says of what is not there, to those who may not list the bucket.
		status == http.StatusForbidden:
		return false, &CacheError{Cache: cache, Kind: ErrMissing}
	case status == http.StatusUnauthorized:
		return false, &CacheError{Cache: cache, Kind: ErrUnreachable, Detail: "it asks for credentials"}
	case status >= http.StatusInternalServerError, status == http.StatusTooManyRequests, status == http.StatusRequestTimeout:
		return true, &CacheError{Cache: cache, Kind: ErrUnreachable, Detail: fmt.Sprintf("it answered with status %d", status)}
	default:
		return false, &CacheError{Cache: cache, Kind: ErrUnreachable, Detail: fmt.Sprintf("it answered with status %d", status)}
	}
}
