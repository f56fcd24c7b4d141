// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"

	certutil "k8s.io/client-go/util/cert"
	"k8s.io/client-go/util/keyutil"

	"github.com/nixfleet/nixfleet/cmd/control-plane/internal/atomicfile"
)

// readCertificate returns the first certificate of the file. The error wraps
// os.ErrNotExist when there is no file.
func readCertificate(path string) (*x509.Certificate, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	certs, err := certutil.ParseCertsPEM(data)
	if err != nil {
		return nil, fmt.Errorf("certificate %s cannot be read: %w (restore it from a backup, or remove it to have it issued anew)", path, err)
	}
	return certs[0], nil
}

// readKey returns the private key in the file. The error wraps os.ErrNotExist
// when there is no file.
func readKey(path string) (*ecdsa.PrivateKey, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if open := info.Mode().Perm() & 0o077; open != 0 {
		return nil, fmt.Errorf("key %s has mode %o, so that others may have read it: run `chmod 600 %s` if nobody has, else remove it with its certificate", path, info.Mode().Perm(), path)
	}
	parsed, err := keyutil.PrivateKeyFromFile(path)
	if err != nil {
		return nil, fmt.Errorf("key %s cannot be read: %w (restore it from a backup)", path, err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("key %s is a %T: only ECDSA keys are used here", path, parsed)
	}
	return key, nil
}

// ensureKey reads the key, or makes it where there is none.
func (s *store) ensureKey(path string) (*ecdsa.PrivateKey, error) {
	key, err := readKey(path)
	if errors.Is(err, os.ErrNotExist) {
		return s.newKey(path)
	}
	return key, err
}

// newKey makes a key and writes it, over an old one if there is one.
func (s *store) newKey(path string) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key %s: %w", path, err)
	}
	data, err := keyutil.MarshalPrivateKeyToPEM(key)
	if err != nil {
		return nil, fmt.Errorf("encode key %s: %w", path, err)
	}
	return key, atomicfile.Write(path, data, 0o600)
}

func writeCertificate(path string, cert *x509.Certificate) error {
	block := pem.EncodeToMemory(&pem.Block{Type: certutil.CertificateBlockType, Bytes: cert.Raw})
	return atomicfile.Write(path, block, 0o644)
}

// newSerial is 127 random bits: unique without a counter that would have to
// survive a restore.
func newSerial() *big.Int {
	limit := new(big.Int).Lsh(big.NewInt(1), 127)
	serial, err := rand.Int(rand.Reader, limit)
	if err != nil {
		// crypto/rand never fails on a supported system; it ends the program.
		panic(err)
	}
	return serial.Add(serial, big.NewInt(1))
}
