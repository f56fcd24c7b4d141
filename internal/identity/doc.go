// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

// Package identity is who a host is: its key, the pin by which a Host object names
// that key, and the TLS certificate that carries it.
//
// The key is the identity. A certificate is only the form in which TLS transports a
// public key: it is self-signed, nobody checks a chain, and its names and dates mean
// nothing. Two keys are the same if and only if their SSH wire encodings are equal
// byte for byte.
//
// What a key may do is decided elsewhere (internal/gateway); this package neither
// opens connections nor knows the Kubernetes API.
package identity
