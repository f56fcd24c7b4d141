// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package identity

import (
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"time"
)

// AuthorizedKey returns the public half of key in OpenSSH format, the line to put
// into spec.identity.publicKeys of the Host. It is an error if the kind of key is not
// supported.
func AuthorizedKey(key crypto.Signer) (string, error) {
	pin, err := PinOf(key.Public())
	if err != nil {
		return "", err
	}
	return pin.String(), nil
}

// ClientCertificate returns a self-signed client certificate for key. It is valid
// from the year 2000 to the end of 9999: what counts is the key, and a certificate
// that could expire, or not be valid yet, would lock out hosts whose clock is wrong.
func ClientCertificate(key crypto.Signer) (tls.Certificate, error) {
	pin, err := PinOf(key.Public())
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("client certificate: %w", err)
	}
	template := &x509.Certificate{
		// The serial number and the names carry no meaning, but must be there.
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{Organization: []string{"nixfleet-host"}, CommonName: pin.Fingerprint()},
		NotBefore:             time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:              time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("client certificate: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("client certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, nil
}
