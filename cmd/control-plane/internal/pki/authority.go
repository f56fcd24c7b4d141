// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"os"
	"time"
)

// authority signs leaves.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// ensureAuthority loads the authority, makes it, or renews it. A
// renewed one keeps key and subject, so that certificates and hosts that know
// the old one go on working.
func (s *store) ensureAuthority(files Files, commonName string) (*authority, error) {
	cert, err := readCertificate(files.CertFile)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	if cert != nil {
		if _, err := os.Stat(files.KeyFile); errors.Is(err, os.ErrNotExist) {
			return nil, missingKeyError(files)
		}
	}
	// The key is written before the certificate: a key alone is a first start
	// that was cut short, and is used.
	key, err := s.ensureKey(files.KeyFile)
	if err != nil {
		return nil, err
	}
	why := "there was none"
	if cert != nil {
		if !key.PublicKey.Equal(cert.PublicKey) {
			return nil, fmt.Errorf("%s does not belong to the key %s: restore both from the same backup", files.CertFile, files.KeyFile)
		}
		if why = expiryReason(cert, s.now); why == "" {
			return &authority{cert: cert, key: key}, nil
		}
	}
	return s.issueAuthority(files, commonName, key, why)
}

func (s *store) issueAuthority(files Files, commonName string, key *ecdsa.PrivateKey, why string) (*authority, error) {
	template := &x509.Certificate{
		SerialNumber:          newSerial(),
		Subject:               pkix.Name{CommonName: commonName},
		NotBefore:             s.now.Add(-backdate),
		NotAfter:              s.now.Add(authorityLifetime),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	cert, err := sign(template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("issue %s: %w", files.CertFile, err)
	}
	if err := writeCertificate(files.CertFile, cert); err != nil {
		return nil, err
	}
	s.noteIssued(files.CertFile, cert, why)
	return &authority{cert: cert, key: key}, nil
}

// expiryReason says why the certificate has to be renewed now, or "".
func expiryReason(cert *x509.Certificate, now time.Time) string {
	if now.Add(renewBefore).After(cert.NotAfter) {
		return "it expires at " + cert.NotAfter.UTC().Format(time.RFC3339)
	}
	return ""
}

func sign(template, parent *x509.Certificate, public crypto.PublicKey, signer crypto.Signer) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, signer)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}
