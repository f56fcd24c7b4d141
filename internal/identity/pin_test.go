// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package identity

import (
	"crypto"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/tls"
	"encoding/base64"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"pgregory.net/rapid"
)

func authorizedKey(t testing.TB, key crypto.Signer) string {
	t.Helper()
	line, err := AuthorizedKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return line
}

func TestParsePinAccepts(t *testing.T) {
	key := newEd25519(t)
	line := authorizedKey(t, key)
	want, err := PinOf(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	for name, in := range map[string]string{
		"the key alone":      line,
		"a comment":          line + " root@web-01",
		"a longer comment":   line + " root@web-01 since 2026",
		"surrounding blanks": "  " + line + "  ",
		"two blanks":         strings.Replace(line, " ", "  ", 1),
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParsePin(in)
			if err != nil {
				t.Fatal(err)
			}
			if got != want {
				t.Errorf("ParsePin(%q) is another key", in)
			}
		})
	}
}

func TestParsePinRefuses(t *testing.T) {
	line := authorizedKey(t, newEd25519(t))
	_, encoded, _ := strings.Cut(line, " ")
	wire, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		t.Fatal(err)
	}
	longer := base64.StdEncoding.EncodeToString(append(wire, 0))
	shorter := base64.StdEncoding.EncodeToString(wire[:len(wire)-1])
	short := newRSA(t, 1024)
	shortKey, err := ssh.NewPublicKey(short.Public())
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct{ in, want string }{
		"nothing":            {"", "must begin with"},
		"a bare word":        {"ssh-ed25519", "ssh-ed25519"},
		"options":            {`command="id" ` + line, "must begin with"},
		"two lines":          {line + "\n" + line, "one line"},
		"a NUL":              {line + "\x00", "one line"},
		"another type":       {"ssh-rsa " + encoded, "holds a key of type ssh-ed25519"},
		"no base64":          {"ssh-ed25519 !!!!", "base64"},
		"trailing bytes":     {"ssh-ed25519 " + longer, "ssh-ed25519"},
		"missing bytes":      {"ssh-ed25519 " + shorter, "ssh-ed25519"},
		"DSA":                {"ssh-dss AAAA", "must begin with"},
		"a certificate":      {"ssh-ed25519-cert-v01@openssh.com AAAA", "must begin with"},
		"a hardware key":     {"sk-ssh-ed25519@openssh.com AAAA", "must begin with"},
		"a short RSA key":    {string(ssh.MarshalAuthorizedKey(shortKey))[:200], "ssh-rsa"},
		"a whole short RSA":  {strings.TrimSpace(string(ssh.MarshalAuthorizedKey(shortKey))), "1024 bits"},
		"upper case":         {strings.ToUpper(line[:11]) + line[11:], "must begin with"},
		"tab for a blank":    {strings.Replace(line, " ", "\t", 1), "must begin with"},
		"a very long prefix": {strings.Repeat("x", 4000), "..."},
	} {
		t.Run(name, func(t *testing.T) {
			pin, err := ParsePin(tt.in)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("ParsePin = %q, %v; want an error with %q", pin, err, tt.want)
			}
		})
	}
}

func TestParsePinsKeepsTheValidOnes(t *testing.T) {
	good := newEd25519(t)
	pins, err := ParsePins([]string{"ssh-ed25519 AAAAbroken", authorizedKey(t, good)})
	if err == nil || !strings.Contains(err.Error(), "key 1") {
		t.Errorf("error = %v, want one that names key 1", err)
	}
	if !pins.Match(good.Public()) {
		t.Error("the valid key is not matched")
	}
}

func TestMatchComparesExactly(t *testing.T) {
	mine, other := newEd25519(t), newEd25519(t)
	ec, ecOther := newECDSA(t, elliptic.P256()), newECDSA(t, elliptic.P256())
	rsaKey := newRSA(t, 2048)
	pins, err := ParsePins([]string{authorizedKey(t, mine), authorizedKey(t, ec), authorizedKey(t, rsaKey) + " comment"})
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		key  crypto.PublicKey
		want bool
	}{
		"ed25519":       {mine.Public(), true},
		"ecdsa":         {ec.Public(), true},
		"rsa":           {rsaKey.Public(), true},
		"other ed25519": {other.Public(), false},
		"other ecdsa":   {ecOther.Public(), false},
		"nil":           {nil, false},
		"a string":      {"ssh-ed25519", false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := pins.Match(tt.key); got != tt.want {
				t.Errorf("Match = %v, want %v", got, tt.want)
			}
		})
	}
	if Pins(nil).Match(mine.Public()) {
		t.Error("the empty set matches a key")
	}
}

func TestPinRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seed := rapid.SliceOfN(rapid.Byte(), ed25519.SeedSize, ed25519.SeedSize).Draw(t, "seed")
		comment := rapid.StringMatching(`( [a-z@. -]{0,20})?`).Draw(t, "comment")
		key := ed25519.NewKeyFromSeed(seed)
		line, err := AuthorizedKey(key)
		if err != nil {
			t.Fatal(err)
		}
		pin, err := ParsePin(line + comment)
		if err != nil {
			t.Fatal(err)
		}
		if pin.String() != line {
			t.Fatalf("%q became %q", line, pin.String())
		}
		if !(Pins{pin: {}}).Match(key.Public()) {
			t.Fatal("a key does not match its own line")
		}
	})
}

// One changed character yields either an error or another key, never the same one.
func TestPinHasOneSpelling(t *testing.T) {
	line := authorizedKey(t, newEd25519(t))
	pin, err := ParsePin(line)
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		at := rapid.IntRange(0, len(line)-1).Draw(t, "at")
		b := rapid.ByteRange(33, 126).Draw(t, "byte")
		changed := line[:at] + string(rune(b)) + line[at+1:]
		got, err := ParsePin(changed)
		if changed != line && err == nil && got == pin {
			t.Fatalf("%q is taken for %q", changed, line)
		}
	})
}

func FuzzParsePin(f *testing.F) {
	f.Add(authorizedKey(f, newEd25519(f)))
	f.Add(authorizedKey(f, newECDSA(f, elliptic.P256())))
	f.Add("ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAAQA=")
	f.Fuzz(func(t *testing.T, line string) {
		pin, err := ParsePin(line)
		if err != nil {
			return
		}
		again, err := ParsePin(pin.String())
		if err != nil || again != pin {
			t.Fatalf("%q: canonical form %q does not parse to the same key: %v", line, pin.String(), err)
		}
	})
}

// The TLS stack of the standard library must accept the certificate as proof of
// possession, whatever the kind of key and however wrong the clock.
func TestClientCertificateProvesPossession(t *testing.T) {
	for name, key := range map[string]crypto.Signer{
		"ed25519": newEd25519(t), "ecdsa": newECDSA(t, elliptic.P384()), "rsa": newRSA(t, 2048),
	} {
		t.Run(name, func(t *testing.T) {
			certificate, err := ClientCertificate(key)
			if err != nil {
				t.Fatal(err)
			}
			if got := certificate.Leaf.NotAfter.Year(); got != 9999 {
				t.Errorf("valid until %d, want 9999", got)
			}
			peer := handshake(t, certificate)
			pins, err := ParsePins([]string{authorizedKey(t, key)})
			if err != nil {
				t.Fatal(err)
			}
			if !pins.Match(peer) {
				t.Error("the key that arrived is not the host's")
			}
		})
	}
}

func handshake(t *testing.T, certificate tls.Certificate) crypto.PublicKey {
	t.Helper()
	serverSide, clientSide := net.Pipe()
	server := tls.Server(serverSide, &tls.Config{
		Certificates: []tls.Certificate{certificate}, ClientAuth: tls.RequestClientCert, MinVersion: tls.VersionTLS13,
	})
	client := tls.Client(clientSide, &tls.Config{
		Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS13,
		InsecureSkipVerify: true, //nolint:gosec // The server is of no interest here.
		Time:               func() time.Time { return time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC) },
	})
	done := make(chan error, 1)
	go func() {
		err := client.Handshake()
		if err == nil {
			_, err = client.Write([]byte("x"))
		}
		done <- err
	}()
	if err := server.Handshake(); err != nil {
		t.Fatal(err)
	}
	if _, err := server.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return server.ConnectionState().PeerCertificates[0].PublicKey
}

// Files and fingerprints are those of OpenSSH, in both directions.
func TestInteroperatesWithSSHKeygen(t *testing.T) {
	keygen, err := exec.LookPath("ssh-keygen")
	if err != nil {
		t.Skip("ssh-keygen is not installed")
	}
	run := func(t *testing.T, args ...string) string {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), keygen, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("ssh-keygen %v: %v: %s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	for _, kind := range []string{"ed25519", "ecdsa", "rsa"} {
		t.Run("reads its "+kind+" key", func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "key")
			run(t, "-q", "-t", kind, "-N", "", "-C", "root@web-01", "-f", path)
			key, err := LoadKey(path)
			if err != nil {
				t.Fatal(err)
			}
			public, err := os.ReadFile(path + ".pub")
			if err != nil {
				t.Fatal(err)
			}
			pin, err := ParsePin(string(public[:len(public)-1]))
			if err != nil {
				t.Fatal(err)
			}
			if !(Pins{pin: {}}).Match(key.Public()) {
				t.Error("the .pub file does not match the key")
			}
			if listed := strings.Fields(run(t, "-l", "-f", path)); listed[1] != pin.Fingerprint() {
				t.Errorf("fingerprint %s, ssh-keygen says %s", pin.Fingerprint(), listed[1])
			}
		})
	}
	t.Run("it reads ours", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "host.key")
		key, err := LoadOrCreateKey(path)
		if err != nil {
			t.Fatal(err)
		}
		want := authorizedKey(t, key)
		if got := run(t, "-y", "-f", path); got != want && got != want+" nixfleet" {
			t.Errorf("ssh-keygen -y says %q, want %q", got, want)
		}
	})
}
