// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package identity

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/crypto/ssh"
)

// maxKeyFile bounds what is read of a private key file. A 16384-bit RSA key takes
// about 13 KB.
const maxKeyFile = 64 << 10

// ErrInsecureFile is the error of a private key that others than its owner can read.
var ErrInsecureFile = errors.New("private key is accessible to others")

// LoadKey reads a private key in OpenSSH or PKCS#8 PEM format: Ed25519, ECDSA on a
// NIST curve, or RSA of at least 2048 bits, without a passphrase. A file that group
// or others may access is refused, as sshd refuses it. The error wraps
// fs.ErrNotExist if there is no such file and ErrInsecureFile if its mode is too open.
func LoadKey(path string) (crypto.Signer, error) {
	data, err := readPrivate(path)
	if err != nil {
		return nil, fmt.Errorf("read host key: %w", err)
	}
	signer, err := parseKey(data)
	if err != nil {
		return nil, fmt.Errorf("host key %s: %w", path, err)
	}
	return signer, nil
}

// LoadOrCreateKey reads the private key at path, or makes a new Ed25519 key there if
// the file does not exist: in OpenSSH format, mode 0600, durable when the call
// returns. A file that exists is never replaced, whatever it holds. Of several
// processes that call it at once, all return the same key.
func LoadOrCreateKey(path string) (crypto.Signer, error) {
	signer, err := LoadKey(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return signer, err
	}
	if err := createKey(path); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("create host key %s: %w", path, err)
	}
	return LoadKey(path)
}

func readPrivate(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // Nothing was written.
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("%s has mode %04o: %w; run: chmod 600 %s", path, mode, ErrInsecureFile, path)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxKeyFile {
		return nil, fmt.Errorf("%s is larger than %d bytes, which no private key is", path, maxKeyFile)
	}
	return data, nil
}

func parseKey(data []byte) (crypto.Signer, error) {
	raw, err := ssh.ParseRawPrivateKey(data)
	var locked *ssh.PassphraseMissingError
	switch {
	case errors.As(err, &locked):
		return nil, errors.New("it is protected by a passphrase, which nobody could enter at boot; remove it with: ssh-keygen -p")
	case err != nil:
		return nil, fmt.Errorf("not a usable private key: %w", err)
	}
	// The OpenSSH format yields a pointer where PKCS#8 yields a value.
	if p, ok := raw.(*ed25519.PrivateKey); ok {
		raw = *p
	}
	signer, ok := raw.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("keys of type %T are not supported; use ed25519", raw)
	}
	if _, err := PinOf(signer.Public()); err != nil {
		return nil, err
	}
	return signer, nil
}

// createKey makes a key under a temporary name and links it into place, so that a
// reader sees either no file or a whole one, and an existing file wins.
func createKey(path string) error {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	block, err := ssh.MarshalPrivateKey(private, "nixfleet")
	if err != nil {
		return err
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(dir, ".hostkey-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) //nolint:errcheck // Left behind at worst, and unreadable to others.
	if err := writeSynced(tmp, pem.EncodeToMemory(block)); err != nil {
		return err
	}
	if err := os.Link(tmp.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

func writeSynced(f *os.File, data []byte) error {
	_, err := f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
