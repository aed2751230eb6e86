package piv

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/piv/pivtest"
)

// at is when attestations are checked: those of real YubiKeys are valid until 2050.
var at = time.Now()

// vector returns an attestation of a YubiKey that one can buy. They are those of go-piv.
func vector(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name+".pem"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestYubiKeys(t *testing.T) {
	for name, want := range map[string]struct{ text, slot string }{
		"yubikey-5": {
			"YubiKey 5.4.3 (USB-C nano), serial number 15732500, PIN once, touch never", "9a",
		},
		// Of 2018: its certificate is from the U2F root, and says of no CA that it is one.
		"yubikey-4": {"YubiKey 4.3.7, PIN once, touch never", "9a"},
	} {
		t.Run(name, func(t *testing.T) {
			text := vector(t, name)
			got, err := Check(text, Yubico(), at)
			if err != nil || got.String() != want.text || got.Slot != want.slot {
				t.Errorf("%s, slot %s, %v; want %s", got, got.Slot, err, want.text)
			}
			second := strings.LastIndex(string(text), "-----BEGIN")
			swapped := slices.Concat(text[second:], text[:second])
			if again, err := Check(swapped, Yubico(), at); err != nil || again.String() != got.String() {
				t.Errorf("in the other order: %s, %v", again, err)
			}
			if issued, found, err := Read(got.Extensions); err != nil || !found || issued.String() != got.String() {
				t.Errorf("read from an issued certificate: %s, %v, %v", issued, found, err)
			}
		})
	}
}

// TestMixed gives a key's certificate of one YubiKey with the certificate of another.
func TestMixed(t *testing.T) {
	a, b := blocks(t, vector(t, "yubikey-5")), blocks(t, vector(t, "yubikey-4"))
	for name, text := range map[string][]byte{
		"of another YubiKey": encode(a[0], b[1]), "the other way round": encode(b[0], a[1]),
		"two keys": encode(a[0], b[0]), "two YubiKeys": encode(a[1], b[1]),
	} {
		refused(t, name, text, Yubico(), at)
	}
}

// TestEachByte changes every byte of both certificates once.
func TestEachByte(t *testing.T) {
	whole := blocks(t, vector(t, "yubikey-5"))
	for i := range whole {
		for at0 := range whole[i] {
			changed := [][]byte{slices.Clone(whole[0]), slices.Clone(whole[1])}
			changed[i][at0] ^= 1
			if a, err := Check(encode(changed...), Yubico(), at); err == nil {
				t.Fatalf("certificate %d, byte %d: %s", i, at0, a)
			}
		}
	}
}

func TestUnreadable(t *testing.T) {
	good := vector(t, "yubikey-5")
	der := blocks(t, good)
	for name, text := range map[string][]byte{
		"empty": nil, "words": []byte("attestation"), "one certificate": encode(der[0]),
		"three certificates": slices.Concat(good, encode(der[0])),
		"a key":              pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der[0]}),
		"cut off":            encode(der[0][:len(der[0])/2], der[1]),
		"too large":          append(slices.Clone(good), make([]byte, MaxSize)...),
	} {
		if _, err := Check(text, Yubico(), at); postern.CodeOf(err) != postern.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// trusts returns the makers that are trusted, a test's among them.
func trusts(t testing.TB, m *pivtest.Maker) *Makers {
	t.Helper()
	file := filepath.Join(t.TempDir(), "makers.pem")
	if err := os.WriteFile(file, m.RootPEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	trusted, err := Trusted(file)
	if err != nil {
		t.Fatal(err)
	}
	return trusted
}

// TestFields changes each field of an attestation that a maker signed.
func TestFields(t *testing.T) {
	m, key := pivtest.NewMaker(t), pivtest.NewKey(t)
	trusted := trusts(t, m)
	firmware, policy := pivtest.Extension(3, 5, 7, 4), pivtest.Extension(8, 3, 2)
	serial, form := pivtest.Extension(7, 2, 1, 42), pivtest.Extension(9, 0x83)
	good := []pkix.Extension{firmware, serial, policy, form}
	attest := func(change func(*x509.Certificate), extensions ...pkix.Extension) []byte {
		c := &x509.Certificate{
			Subject:         pkix.Name{CommonName: "YubiKey PIV Attestation 9c"},
			ExtraExtensions: extensions,
		}
		change(c)
		return encode(m.Sign(c, m.Device, &key.PublicKey, m.Key).Raw, m.Device.Raw)
	}
	as := func(*x509.Certificate) {}
	a, err := Check(attest(as, good...), trusted, at)
	if want := "YubiKey FIPS 5.7.4 (USB-C keychain), serial number 42, PIN always, touch always"; err != nil ||
		a.String() != want || a.Slot != "9c" || !key.PublicKey.Equal(a.Public) {
		t.Errorf("%s, slot %s, %v; want %s", a, a.Slot, err, want)
	}
	for name, text := range map[string][]byte{
		"no extension":         attest(as),
		"no firmware":          attest(as, serial, policy, form),
		"no policy":            attest(as, firmware, serial, form),
		"a short firmware":     attest(as, pivtest.Extension(3, 5, 7), policy),
		"a long policy":        attest(as, firmware, pivtest.Extension(8, 3, 2, 1)),
		"an unknown PIN":       attest(as, firmware, pivtest.Extension(8, 0, 2)),
		"an unknown touch":     attest(as, firmware, pivtest.Extension(8, 3, 9)),
		"a negative number":    attest(as, firmware, policy, pivtest.Extension(7, 2, 1, 0x80)),
		"a number and more":    attest(as, firmware, policy, pivtest.Extension(7, 2, 1, 42, 0)),
		"a large number":       attest(as, firmware, policy, pivtest.Extension(7, 2, 5, 1, 0, 0, 0, 0)),
		"an empty form factor": attest(as, firmware, policy, pivtest.Extension(9)),
		"expired": attest(func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = at.Add(-2*time.Hour), at.Add(-time.Hour)
		}, good...),
		"not valid yet": attest(func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = at.Add(time.Hour), at.Add(2*time.Hour)
		}, good...),
		"a critical extension": attest(as,
			append(good, pkix.Extension{
				Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true,
				Value: []byte{5, 0},
			})...),
	} {
		refused(t, name, text, trusted, at)
	}
	refused(t, "a maker that is not trusted", attest(as, good...), Yubico(), at)
	refused(t, "after the YubiKey's certificate has expired", attest(func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = at, at.AddDate(30, 0, 0)
	}, good...), trusted, at.AddDate(20, 0, 0))
}

// TestAttestedKeySigns has a key that a YubiKey attests sign an attestation of its own.
func TestAttestedKeySigns(t *testing.T) {
	m, inside, file := pivtest.NewMaker(t), pivtest.NewKey(t), pivtest.NewKey(t)
	trusted := trusts(t, m)
	extensions := []pkix.Extension{pivtest.Extension(3, 5, 7, 4), pivtest.Extension(8, 3, 2)}
	for name, lie := range map[string]*x509.Certificate{
		"as it is": {Subject: pkix.Name{CommonName: "YubiKey PIV Attestation 9a"}, ExtraExtensions: extensions},
		"as a CA": {
			Subject: pkix.Name{CommonName: "Yubico PIV Attestation"}, ExtraExtensions: extensions,
		},
	} {
		attested := m.Sign(lie, m.Device, &inside.PublicKey, m.Key)
		forged := m.Sign(&x509.Certificate{
			Subject: pkix.Name{CommonName: "YubiKey PIV Attestation 9a"}, ExtraExtensions: extensions,
		}, attested, &file.PublicKey, inside)
		refused(t, name, encode(forged.Raw, attested.Raw), trusted, at)
		refused(t, name+", with the YubiKey's", encode(forged.Raw, attested.Raw, m.Device.Raw), trusted, at)
	}
}

// TestWeakRSA refuses RSA keys that can be factored.
func TestWeakRSA(t *testing.T) {
	for firmware, weak := range map[string]bool{
		"4.1.9": false, "4.2.6": true, "4.3.4": true, "4.3.5": false,
		"5.4.3": false,
	} {
		a := Attestation{Public: new(rsa.PublicKey), Firmware: firmware}
		if err := a.strong(); (err != nil) != weak {
			t.Errorf("%s: %v", firmware, err)
		}
		a.Public = new(ecdsa.PublicKey)
		if err := a.strong(); err != nil {
			t.Errorf("%s, EC: %v", firmware, err)
		}
	}
}

// TestUnknownKey refuses an attested key of an algorithm that is not known: crypto/x509 reads it as no key.
func TestUnknownKey(t *testing.T) {
	m := pivtest.NewMaker(t)
	if a, err := Check(m.AttestUnknown(), trusts(t, m), at); postern.CodeOf(err) != postern.Denied {
		t.Errorf("%s, %v", a, err)
	}
}

func FuzzCheck(f *testing.F) {
	f.Add(vector(f, "yubikey-5"))
	f.Add(vector(f, "yubikey-4"))
	f.Add(yubico)
	makers := Yubico()
	f.Fuzz(func(t *testing.T, text []byte) {
		a, err := Check(text, makers, at)
		if err == nil && (a.Firmware == "" || a.Public == nil) {
			t.Errorf("accepted: %+v", a)
		}
	})
}

func refused(t *testing.T, name string, text []byte, trusted *Makers, now time.Time) {
	t.Helper()
	if a, err := Check(text, trusted, now); err == nil {
		t.Errorf("%s: accepted, %s", name, a)
	}
}

func blocks(t testing.TB, text []byte) (out [][]byte) {
	t.Helper()
	certs, err := certificates(text)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range certs {
		out = append(out, c.Raw)
	}
	return out
}

func encode(certs ...[]byte) (text []byte) {
	for _, der := range certs {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return text
}

// TestMakersFile reads files that are missing or wrong.
func TestMakersFile(t *testing.T) {
	dir := t.TempDir()
	if _, err := Trusted(filepath.Join(dir, "missing")); err != nil {
		t.Error(err)
	}
	many := filepath.Join(dir, "many")
	if err := os.WriteFile(many, append(slices.Repeat([]byte("#\n"), MaxSize), yubico...), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Trusted(many); err != nil {
		t.Errorf("a file larger than an attestation may be: %v", err)
	}
	for name, text := range map[string]string{"empty": "", "words": "Yubico", "a key": string(pem.EncodeToMemory(
		&pem.Block{Type: "PRIVATE KEY", Bytes: []byte{1}}))} {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Trusted(file); postern.CodeOf(err) != postern.Internal || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
