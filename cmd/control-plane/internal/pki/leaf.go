// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package pki

import (
	"crypto/ecdsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"time"
)

// leaf is what a certificate has to be.
type leaf struct {
	files   Files
	issuer  *authority
	subject pkix.Name
	usage   x509.ExtKeyUsage
	// hosts are sorted and unique.
	hosts []string
}

// ensureLeaf keeps the certificate when it is what is wanted, and issues it with a new key otherwise: nobody but this process depends on it.
func (s *store) ensureLeaf(want leaf) error {
	cert, err := readCertificate(want.files.CertFile)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	key, err := readKey(want.files.KeyFile)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	why := issueReason(cert, key, want, s.now)
	if why == "" {
		return nil
	}
	return s.issueLeaf(want, why)
}

// issueReason says why a certificate has to be issued, or "" when the present
// one is good.
func issueReason(cert *x509.Certificate, key *ecdsa.PrivateKey, want leaf, now time.Time) string {
	switch {
	case cert == nil:
		return "there was none"
	case key == nil || !key.PublicKey.Equal(cert.PublicKey):
		return "its key is missing or another's"
	case cert.CheckSignatureFrom(want.issuer.cert) != nil:
		return "it was signed by another authority"
	case cert.Subject.String() != want.subject.String():
		return "it names " + cert.Subject.String()
	case !slices.Equal(certificateHosts(cert), want.hosts):
		return fmt.Sprintf("it is for %v, wanted is %v", certificateHosts(cert), want.hosts)
	default:
		return expiryReason(cert, now)
	}
}

func (s *store) issueLeaf(want leaf, why string) error {
	key, err := s.newKey(want.files.KeyFile)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber:          newSerial(),
		Subject:               want.subject,
		NotBefore:             s.now.Add(-backdate),
		NotAfter:              earlier(s.now.Add(leafLifetime), want.issuer.cert.NotAfter),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{want.usage},
		BasicConstraintsValid: true,
	}
	for _, host := range want.hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	cert, err := sign(template, want.issuer.cert, key.Public(), want.issuer.key)
	if err != nil {
		return fmt.Errorf("issue %s: %w", want.files.CertFile, err)
	}
	if err := writeCertificate(want.files.CertFile, cert); err != nil {
		return err
	}
	s.noteIssued(want.files.CertFile, cert, why)
	return nil
}

// hostSet brings names and addresses into the one form in which they are
// compared: addresses canonical, sorted, each once.
func hostSet(hosts []string) []string {
	set := make([]string, 0, len(hosts))
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			host = ip.String()
		}
		set = append(set, host)
	}
	slices.Sort(set)
	return slices.Compact(set)
}

func certificateHosts(cert *x509.Certificate) []string {
	hosts := slices.Clone(cert.DNSNames)
	for _, ip := range cert.IPAddresses {
		hosts = append(hosts, ip.String())
	}
	return hostSet(hosts)
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
