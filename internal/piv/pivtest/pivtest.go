// Package pivtest is a maker of YubiKeys for tests.
package pivtest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"testing"
	"time"
)

// Maker is a maker, and one YubiKey that it made.
type Maker struct {
	t            testing.TB
	Root, Device *x509.Certificate
	Key          *ecdsa.PrivateKey // with which the YubiKey attests
}

// NewMaker makes a maker's root, and a YubiKey's certificate.
func NewMaker(t testing.TB) *Maker {
	t.Helper()
	key := NewKey(t)
	m := &Maker{t: t, Key: NewKey(t)}
	ca := func(name string) *x509.Certificate {
		return &x509.Certificate{
			Subject: pkix.Name{CommonName: name}, BasicConstraintsValid: true, IsCA: true,
			KeyUsage:  x509.KeyUsageCertSign,
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(10, 0, 0),
		}
	}
	root := ca("Test PIV Root CA")
	m.Root = m.Sign(root, root, &key.PublicKey, key)
	m.Device = m.Sign(ca("Test PIV Attestation"), m.Root, &m.Key.PublicKey, key)
	return m
}

// NewKey makes a key, P-256.
func NewKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// Sign issues a certificate, valid for a year unless the template says for how long.
func (m *Maker) Sign(tmpl, parent *x509.Certificate, pub any, by *ecdsa.PrivateKey) *x509.Certificate {
	m.t.Helper()
	c := *tmpl
	c.SerialNumber = big.NewInt(1)
	if c.NotAfter.IsZero() {
		c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().AddDate(1, 0, 0)
	}
	der, err := x509.CreateCertificate(rand.Reader, &c, parent, pub, by)
	if err != nil {
		m.t.Fatal(err)
	}
	out, err := x509.ParseCertificate(der)
	if err != nil {
		m.t.Fatal(err)
	}
	return out
}

// Extension is one that a YubiKey writes, by the last number of its OID.
func Extension(last int, value ...byte) pkix.Extension {
	return pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 41482, 3, last}, Value: value}
}

// Attest returns the attestation, in PEM, of a key that asks for its PIN once and for a
// touch always, by a YubiKey of firmware 5.7.4 with the serial number 42.
func (m *Maker) Attest(pub any) []byte {
	return append(encode(m.attest(pub)), encode(m.Device)...)
}

func (m *Maker) attest(pub any) *x509.Certificate {
	return m.Sign(&x509.Certificate{
		Subject:         pkix.Name{CommonName: "YubiKey PIV Attestation 9a"},
		ExtraExtensions: []pkix.Extension{Extension(3, 5, 7, 4), Extension(7, 2, 1, 42), Extension(8, 2, 2)},
	}, m.Device, pub, m.Key)
}

// AttestUnknown is [Maker.Attest] for a key of an algorithm that does not exist.
func (m *Maker) AttestUnknown() []byte {
	m.t.Helper()
	c := m.attest(&NewKey(m.t).PublicKey)
	ecPublicKey := []byte{6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1}
	tbs := bytes.Replace(c.RawTBSCertificate, ecPublicKey, []byte{6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 99}, 1)
	hash := sha256.Sum256(tbs)
	signature, err := ecdsa.SignASN1(rand.Reader, m.Key, hash[:])
	if err != nil {
		m.t.Fatal(err)
	}
	der, err := asn1.Marshal(struct {
		TBS       asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}{
		asn1.RawValue{FullBytes: tbs},
		pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}}, // ECDSA with SHA-256
		asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)},
	})
	if err != nil {
		m.t.Fatal(err)
	}
	return append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), encode(m.Device)...)
}

// RootPEM returns the maker's root.
func (m *Maker) RootPEM() []byte { return encode(m.Root) }

func encode(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}
