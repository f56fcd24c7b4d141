// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package identity

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/ssh"
)

// minRSABits is the smallest RSA modulus that is accepted. crypto/tls refuses
// moduli over 8192 bits by itself.
const minRSABits = 2048

// Pin is a public key in its one canonical form, the SSH wire encoding. Pins are
// comparable with == and can be map keys. The zero Pin equals the pin of no key.
type Pin struct {
	wire string
}

// ParsePin parses one key in OpenSSH format: type, base64 and an optional comment, as
// in /etc/ssh/ssh_host_ed25519_key.pub. It is stricter than sshd: a line with options,
// more than one line, a certificate, a hardware-backed key, RSA under 2048 bits, or an
// encoding that is not canonical is an error.
func ParsePin(line string) (Pin, error) {
	if strings.ContainsAny(line, "\n\r\x00") {
		return Pin{}, errors.New("public key spans more than one line")
	}
	algorithm, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
	encoded, _, _ := strings.Cut(strings.TrimLeft(rest, " "), " ")
	if !supported(algorithm) {
		return Pin{}, fmt.Errorf("public key begins with %q; it must begin with ssh-ed25519, ssh-rsa or ecdsa-sha2-nistp256, -384 or -521", shorten(algorithm))
	}
	wire, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if err != nil {
		return Pin{}, fmt.Errorf("public key %s: not valid base64: %w", algorithm, err)
	}
	key, err := ssh.ParsePublicKey(wire)
	if err != nil {
		return Pin{}, fmt.Errorf("public key %s: %w", algorithm, err)
	}
	if key.Type() != algorithm {
		return Pin{}, fmt.Errorf("public key says %s but holds a key of type %s", algorithm, key.Type())
	}
	if !bytes.Equal(key.Marshal(), wire) {
		return Pin{}, fmt.Errorf("public key %s: its encoding is not the canonical one", algorithm)
	}
	return newPin(key)
}

// PinOf returns the pin of a public key as crypto/x509 and crypto/tls know it. Kinds
// of key that ParsePin refuses are an error.
func PinOf(key crypto.PublicKey) (Pin, error) {
	sshKey, err := ssh.NewPublicKey(key)
	if err != nil {
		return Pin{}, fmt.Errorf("public key of type %T: %w", key, err)
	}
	if !supported(sshKey.Type()) {
		return Pin{}, fmt.Errorf("public keys of type %s are not supported; use ed25519", sshKey.Type())
	}
	return newPin(sshKey)
}

func newPin(key ssh.PublicKey) (Pin, error) {
	if withCrypto, ok := key.(ssh.CryptoPublicKey); ok {
		if k, ok := withCrypto.CryptoPublicKey().(*rsa.PublicKey); ok && k.N.BitLen() < minRSABits {
			return Pin{}, fmt.Errorf("RSA key has %d bits; at least %d are needed, or use ed25519", k.N.BitLen(), minRSABits)
		}
	}
	return Pin{wire: string(key.Marshal())}, nil
}

// String returns the key in OpenSSH format, without a comment and without a newline.
func (p Pin) String() string {
	key, err := ssh.ParsePublicKey([]byte(p.wire))
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(string(ssh.MarshalAuthorizedKey(key)), "\n")
}

// Fingerprint returns SHA256: and the hash of the key in base64, as ssh-keygen -l
// prints it. It is public.
func (p Pin) Fingerprint() string {
	key, err := ssh.ParsePublicKey([]byte(p.wire))
	if err != nil {
		return ""
	}
	return ssh.FingerprintSHA256(key)
}

// Pins is a set of keys, such as those that a Host pins. The nil set has no key.
type Pins map[Pin]struct{}

// ParsePins parses each line with ParsePin. It returns every key that is valid even
// when the error is not nil, so that a typo in one key does not lock out the others;
// the error joins one error for each line that is not valid.
func ParsePins(lines []string) (Pins, error) {
	pins := make(Pins, len(lines))
	var errs []error
	for i, line := range lines {
		pin, err := ParsePin(line)
		if err != nil {
			errs = append(errs, fmt.Errorf("key %d: %w", i+1, err))
			continue
		}
		pins[pin] = struct{}{}
	}
	return pins, errors.Join(errs...)
}

// Has says whether pin is one of the keys.
func (p Pins) Has(pin Pin) bool {
	_, ok := p[pin]
	return ok
}

// Match says whether the public key, such as that of a TLS peer certificate, is one
// of the keys. Keys are compared exactly.
func (p Pins) Match(key crypto.PublicKey) bool {
	pin, err := PinOf(key)
	return err == nil && p.Has(pin)
}

func supported(algorithm string) bool {
	switch algorithm {
	case ssh.KeyAlgoED25519, ssh.KeyAlgoRSA, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521:
		return true
	default:
		return false
	}
}

func shorten(s string) string {
	const limit = 40
	if len(s) > limit {
		return s[:limit] + "..."
	}
	return s
}
