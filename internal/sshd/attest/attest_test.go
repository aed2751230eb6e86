package attest

import (
	"crypto/x509"
	"encoding/base64"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"golang.org/x/crypto/ssh"
)

// vector is an attestation of a device that one can buy.
type vector struct {
	attestation, challenge []byte
	key                    ssh.PublicKey
}

func read(t testing.TB, name string) (v vector) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name+".txt"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		what, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch what {
		case "challenge":
			v.challenge, err = base64.StdEncoding.DecodeString(value)
		case "attestation":
			v.attestation, err = base64.StdEncoding.DecodeString(value)
		case "key":
			v.key, _, _, _, err = ssh.ParseAuthorizedKey([]byte(value))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return v
}

// at is when the vectors' certificates are valid.
var at = time.Date(2026, 11, 30, 0, 0, 0, 0, time.UTC)

func TestDevices(t *testing.T) {
	for name, want := range map[string]Key{
		"yubikey-5":      {AAGUID: "cb69481e-8ff7-4039-93ec-0a2729a154a8"},
		"yubikey-5-fips": {AAGUID: "73bb0cd4-e502-49b8-9c6f-b59445bf720b", VerifyRequired: true},
		"yubikey-5-fips-ed25519": {
			AAGUID: "73bb0cd4-e502-49b8-9c6f-b59445bf720b",
		},
	} {
		v := read(t, name)
		got, err := Check(v.attestation, v.challenge, v.key, Trust{Roots: Roots()}, at)
		want.Public, want.Maker = v.key, "Yubico AB"
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

// TestWhatProvesNothing changes what surrounds an attestation.
func TestWhatProvesNothing(t *testing.T) {
	v, other := read(t, "yubikey-5"), read(t, "yubikey-5-fips")
	ordinary, _, _, _, err := ssh.ParseAuthorizedKey([]byte(
		"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ2XvtVXbOIfhW5sbqWsGbZFe4Ky7kxrDWEEGnFMqaOC"))
	if err != nil {
		t.Fatal(err)
	}
	var elsewhere struct {
		Name, Curve string
		Key         []byte
		Application string
	}
	if err := ssh.Unmarshal(v.key.Marshal(), &elsewhere); err != nil {
		t.Fatal(err)
	}
	elsewhere.Application = "ssh:elsewhere"
	application, err := ssh.ParsePublicKey(ssh.Marshal(elsewhere))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		vector
		roots *x509.CertPool
		at    time.Time
	}{
		"another challenge":         {vector{v.attestation, []byte("another"), v.key}, Roots(), at},
		"no challenge":              {vector{v.attestation, nil, v.key}, Roots(), at},
		"another key":               {vector{v.attestation, v.challenge, other.key}, Roots(), at},
		"a key in a file":           {vector{v.attestation, v.challenge, ordinary}, Roots(), at},
		"the key, for another use":  {vector{v.attestation, v.challenge, application}, Roots(), at},
		"no maker is known":         {v, x509.NewCertPool(), at},
		"the certificate has ended": {v, Roots(), at.AddDate(50, 0, 0)},
		"it is not valid yet":       {v, Roots(), at.AddDate(-20, 0, 0)},
		"the key of no attestation": {vector{nil, v.challenge, v.key}, Roots(), at},
		"something of great length": {vector{make([]byte, MaxSize+1), v.challenge, v.key}, Roots(), at},
		"more stands behind its end": {
			vector{append(slices.Clone(v.attestation), 0), v.challenge, v.key},
			Roots(),
			at,
		},
	} {
		k, err := Check(c.attestation, c.challenge, c.key, Trust{Roots: c.roots}, c.at)
		if code := postern.CodeOf(err); err == nil || code != postern.Denied && code != postern.Invalid ||
			k != (Key{}) || postern.HintOf(err) == "" && code == postern.Invalid {
			t.Errorf("%s: %+v, %v", name, k, err)
		}
	}
}

// TestEveryBitCounts changes an attestation in each of its bits, and cuts it at each
// byte.
func TestEveryBitCounts(t *testing.T) {
	for _, name := range []string{"yubikey-5", "yubikey-5-fips", "yubikey-5-fips-ed25519"} {
		v := read(t, name)
		trust := Trust{Roots: Roots()}
		for i := range v.attestation {
			b := slices.Clone(v.attestation)
			b[i] ^= 1 << (i % 8)
			if k, err := Check(b, v.challenge, v.key, trust, at); err == nil {
				t.Errorf("%s: byte %d changed: %+v", name, i, k)
			}
			if k, err := Check(v.attestation[:i], v.challenge, v.key, trust, at); err == nil {
				t.Errorf("%s: the first %d bytes: %+v", name, i, k)
			}
		}
	}
}

func FuzzCheck(f *testing.F) {
	v := read(f, "yubikey-5-fips")
	for _, name := range []string{"yubikey-5", "yubikey-5-fips", "yubikey-5-fips-ed25519"} {
		f.Add(read(f, name).attestation)
	}
	trust := Trust{Roots: Roots()}
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := Check(b, v.challenge, v.key, trust, at); err == nil && !slices.Equal(b, v.attestation) {
			t.Error("an attestation that the device did not make proves something")
		}
	})
}
