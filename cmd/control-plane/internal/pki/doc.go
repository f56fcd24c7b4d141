// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

// Package pki keeps the control plane's certificates and keys in one directory.
//
// There are two authorities, because they vouch for different things: "ca" for
// the Kubernetes API server and for its clients, "gateway-ca" for the address
// that hosts dial. A host trusts the second alone, and a leak of the second
// gives nobody a right in the API.
//
//	ca              signs apiserver, admin, manager
//	gateway-ca      signs gateway/tls
//	service-account signs service account tokens (a key without certificate)
//
// Ensure makes what is missing, keeps what is good, and renews what is about
// to expire; why a certificate is renewed is decided in one pure function.
package pki
