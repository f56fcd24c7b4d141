// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package binarycache

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"syscall"
)

var (
	// ErrMissing means that a cache does not have a path.
	ErrMissing = errors.New("not in the cache")

	// ErrInvalid means that a cache served something that is not valid.
	ErrInvalid = errors.New("the cache served something that is not valid")

	// ErrUnreachable means that a cache could not be asked.
	ErrUnreachable = errors.New("the cache could not be asked")
)

// CacheError is what went wrong with one cache. It wraps ErrMissing, ErrInvalid or
// ErrUnreachable. Its text is the same whenever the same goes wrong: it becomes part of a
// condition's message.
type CacheError struct {
	// Cache is the URL of the cache.
	Cache string

	// Kind is ErrMissing, ErrInvalid or ErrUnreachable.
	Kind error

	// Detail says more; empty if there is no more to say.
	Detail string
}

// Error says what went wrong with which cache.
func (e *CacheError) Error() string {
	if e.Detail == "" {
		return fmt.Sprintf("%s: %v", e.Cache, e.Kind)
	}
	return fmt.Sprintf("%s: %v: %s", e.Cache, e.Kind, e.Detail)
}

// Unwrap returns the kind.
func (e *CacheError) Unwrap() error { return e.Kind }

// describe turns an error of the transport into words without ports, times and addresses
// of this side, which differ from try to try.
func describe(err error) string {
	var (
		dns         *net.DNSError
		certificate *tls.CertificateVerificationError
		errno       syscall.Errno
		redirect    *redirectError
	)
	switch {
	case errors.As(err, &redirect):
		return redirect.Error()
	case errors.As(err, &dns):
		return fmt.Sprintf("the name %s cannot be resolved", dns.Name)
	case errors.As(err, &certificate):
		return describeCertificate(certificate.Err)
	case os.IsTimeout(err), errors.Is(err, context.DeadlineExceeded):
		return "it did not answer in time"
	case errors.As(err, &errno):
		return errno.Error()
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "it closed the connection"
	}
	var request *url.Error
	if errors.As(err, &request) {
		err = request.Err
	}
	var operation *net.OpError
	if errors.As(err, &operation) {
		err = operation.Err
	}
	return shorten(err.Error())
}

func describeCertificate(err error) string {
	var (
		authority x509.UnknownAuthorityError
		hostname  x509.HostnameError
		invalid   x509.CertificateInvalidError
	)
	switch {
	case errors.As(err, &authority):
		return "its certificate is of an unknown authority"
	case errors.As(err, &hostname):
		return "its certificate is for another name"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "its certificate has expired or is not valid yet"
	default:
		return "its certificate is not valid"
	}
}

type redirectError struct{ reason string }

func (e *redirectError) Error() string { return e.reason }
