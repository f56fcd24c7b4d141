// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package pki

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/go-logr/logr"
)

const (
	// authorityLifetime is long because hosts carry gateway-ca in their
	// configuration: replacing it means a release to each of them.
	authorityLifetime = 10 * 365 * 24 * time.Hour
	leafLifetime      = 365 * 24 * time.Hour

	// renewBefore is how long before its end a certificate is renewed.
	renewBefore = 30 * 24 * time.Hour

	// backdate tolerates clients whose clock is a little behind.
	backdate = 5 * time.Minute
)

// ManagerUser is the identity the manager acts under: the service account that
// config/rbac grants its rights to and that config/policy names.
const (
	ManagerNamespace = "nixfleet-system"
	ManagerUser      = "system:serviceaccount:" + ManagerNamespace + ":nixfleet-manager"
)

// Config says what the certificates have to be good for.
type Config struct {
	// Dir holds the files; it must exist and be private.
	Dir string
	// APIHosts are the names and IP addresses of the API server.
	APIHosts []string
	// GatewayHosts are the names and IP addresses of the agent gateway.
	GatewayHosts []string
	// Now is the clock.
	Now func() time.Time
	// Log hears of each certificate that is issued, and why.
	Log logr.Logger
}

// Files are the two files of one certificate. CertFile may be read by anyone
// who may enter the directory, KeyFile has mode 0600.
type Files struct {
	CertFile string
	KeyFile  string
}

// Bundle names the files that Ensure keeps.
type Bundle struct {
	CA        Files
	APIServer Files
	Admin     Files
	Manager   Files
	GatewayCA Files
	Gateway   Files

	// GatewayDir holds the files of Gateway alone, under the names that a TLS
	// Secret has when it is mounted.
	GatewayDir string

	// ServiceAccountKey is the private key that signs service account tokens.
	ServiceAccountKey string
}

// Ensure makes the directory hold a complete set of certificates that are
// valid for at least 30 more days, and returns their names. Existing ones are
// kept when they are good. A file that cannot be read or parsed is an error
// and is never written over: replacing an authority by accident would lock
// every host out.
func Ensure(cfg Config) (*Bundle, error) {
	s := &store{now: cfg.Now(), log: cfg.Log}
	b := layout(cfg.Dir)
	if err := os.MkdirAll(b.GatewayDir, 0o700); err != nil {
		return nil, err
	}
	ca, err := s.ensureAuthority(b.CA, "nixfleet-ca")
	if err != nil {
		return nil, err
	}
	gatewayCA, err := s.ensureAuthority(b.GatewayCA, "nixfleet-gateway-ca")
	if err != nil {
		return nil, err
	}
	for _, want := range leaves(cfg, b, ca, gatewayCA) {
		if err := s.ensureLeaf(want); err != nil {
			return nil, err
		}
	}
	if _, err := s.ensureKey(b.ServiceAccountKey); err != nil {
		return nil, err
	}
	return b, nil
}

// layout names the files in dir.
func layout(dir string) *Bundle {
	pair := func(name string) Files {
		return Files{CertFile: filepath.Join(dir, name+".crt"), KeyFile: filepath.Join(dir, name+".key")}
	}
	return &Bundle{
		CA:                pair("ca"),
		APIServer:         pair("apiserver"),
		Admin:             pair("admin"),
		Manager:           pair("manager"),
		GatewayCA:         pair("gateway-ca"),
		Gateway:           pair(filepath.Join("gateway", "tls")),
		GatewayDir:        filepath.Join(dir, "gateway"),
		ServiceAccountKey: filepath.Join(dir, "service-account.key"),
	}
}

// leaves is the list of certificates below the two authorities.
func leaves(cfg Config, b *Bundle, ca, gatewayCA *authority) []leaf {
	return []leaf{
		{
			files:   b.APIServer,
			issuer:  ca,
			subject: pkix.Name{CommonName: "kube-apiserver"},
			usage:   x509.ExtKeyUsageServerAuth,
			hosts:   hostSet(cfg.APIHosts),
		},
		{
			files:  b.Admin,
			issuer: ca,
			// The group is bound to everything by the API server itself: this
			// is the credential that repairs a broken RBAC.
			subject: pkix.Name{CommonName: "nixfleet-admin", Organization: []string{"system:masters"}},
			usage:   x509.ExtKeyUsageClientAuth,
		},
		{
			files:  b.Manager,
			issuer: ca,
			subject: pkix.Name{
				CommonName:   ManagerUser,
				Organization: []string{"system:serviceaccounts", "system:serviceaccounts:" + ManagerNamespace},
			},
			usage: x509.ExtKeyUsageClientAuth,
		},
		{
			files:   b.Gateway,
			issuer:  gatewayCA,
			subject: pkix.Name{CommonName: "nixfleet-gateway"},
			usage:   x509.ExtKeyUsageServerAuth,
			hosts:   hostSet(cfg.GatewayHosts),
		},
	}
}

// store reads and writes the files.
type store struct {
	now time.Time
	log logr.Logger
}

func (s *store) noteIssued(file string, cert *x509.Certificate, why string) {
	s.log.Info("Issued a certificate", "file", file, "reason", why, "expires", cert.NotAfter.UTC().Format(time.RFC3339))
}

func missingKeyError(f Files) error {
	return fmt.Errorf("%s is there but its key %s is not: restore the key from a backup, or remove the certificate to start with a new authority (then every host and client must be given the new certificate)", f.CertFile, f.KeyFile)
}
