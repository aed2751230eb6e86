package ca

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/postern-project/postern"
)

// TestLeafIsWhatCryptoX509Writes compares the bytes that are signed, for every
// shape of template and key, with those of x509.CreateCertificate.
func TestLeafIsWhatCryptoX509Writes(t *testing.T) {
	iss := leafIssuer(t, P256)
	raw, err := (&Authority{cfg: Config{Name: "Example & Söhne"}, root: &x509.Certificate{}}).
		clientSubject(postern.Person{Name: "dan", Email: "dan@example.com"}, []string{"Büro"}, "0a1b2c3d")
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 3, 4, 5, 6, 7, 890, time.FixedZone("east", 3600))
	for name, change := range map[string]func(*x509.Certificate){
		"server": func(c *x509.Certificate) {
			c.DNSNames, c.Subject.CommonName = []string{"www.example.com"}, "www.example.com"
		},
		"wildcard": func(c *x509.Certificate) {
			c.DNSNames, c.Subject.CommonName = []string{"*.example.com", "a.example"}, "*.example.com"
		},
		"addresses": func(c *x509.Certificate) {
			c.IPAddresses = []net.IP{net.IPv4(192, 0, 2, 1), net.ParseIP("2001:db8::1"), {192, 0, 2, 2}}
		},
		"long name": func(c *x509.Certificate) { c.DNSNames = []string{strings.Repeat("a", 63) + ".example.com"} },
		"RSA usage": func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageKeyEncipherment },
		"client": func(c *x509.Certificate) {
			c.ExtKeyUsage, c.EmailAddresses, c.RawSubject = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
				[]string{"dan@example.com"}, raw
		},
		"no mail": func(c *x509.Certificate) {
			c.ExtKeyUsage, c.RawSubject = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, raw
		},
		"no URLs": func(c *x509.Certificate) {
			c.OCSPServer, c.IssuingCertificateURL, c.CRLDistributionPoints = nil, nil, nil
		},
		"no OCSP":     func(c *x509.Certificate) { c.OCSPServer = nil },
		"beyond 2049": func(c *x509.Certificate) { c.NotAfter = time.Date(2051, 1, 1, 0, 0, 0, 0, time.UTC) },
		"end of 2049": func(c *x509.Certificate) {
			c.NotAfter = time.Date(2050, 1, 1, 0, 30, 0, 0, time.FixedZone("east", 3600))
		},
		"OCSP": func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning} },
		"extra": func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: oidOCSPNonce, Value: []byte{5, 0}}}
		},
		"small serial":  func(c *x509.Certificate) { c.SerialNumber = big.NewInt(128) },
		"large serial":  func(c *x509.Certificate) { c.SerialNumber = new(big.Int).Lsh(big.NewInt(255), 120) },
		"hundred names": func(c *x509.Certificate) { c.DNSNames = manyNames(100) },
	} {
		for _, alg := range []Algorithm{P256, P384, RSA3072, Ed25519} {
			tmpl := &x509.Certificate{
				SerialNumber: newSerial(), NotBefore: at, NotAfter: at.Add(90 * day),
				SubjectKeyId: []byte("twenty bytes of hash"),
				KeyUsage:     x509.KeyUsageDigitalSignature,
				ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true,
				OCSPServer:            []string{"http://pki.example.com/ocsp"},
				IssuingCertificateURL: []string{"http://pki.example.com/ca/x.cer"},
				CRLDistributionPoints: []string{"http://pki.example.com/crl/x.crl"},
			}
			change(tmpl)
			pub := publicOf(t, alg)
			sameLeaf(t, name+" "+string(alg), iss, tmpl, pub)
		}
	}
}

// sameLeaf signs both ways.
func sameLeaf(t *testing.T, name string, iss *issuer, tmpl *x509.Certificate, pub crypto.PublicKey) {
	t.Helper()
	spki, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	want, err := x509.CreateCertificate(rand.Reader, tmpl, iss.cert, pub, iss.signer)
	if err != nil {
		t.Fatal(err)
	}
	got, err := iss.signLeaf(tmpl, pub, spki)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	w, err := x509.ParseCertificate(want)
	if err != nil {
		t.Fatal(err)
	}
	g, err := x509.ParseCertificate(got)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if !bytes.Equal(g.RawTBSCertificate, w.RawTBSCertificate) {
		t.Errorf("%s: signed is\n%x\ninstead of\n%x", name, g.RawTBSCertificate, w.RawTBSCertificate)
	}
	if g.SignatureAlgorithm != w.SignatureAlgorithm {
		t.Errorf("%s: signed with %v instead of %v", name, g.SignatureAlgorithm, w.SignatureAlgorithm)
	}
	if err := g.CheckSignatureFrom(iss.cert); err != nil {
		t.Errorf("%s: %v", name, err)
	}
}

func TestLeafRefusesNamesThatAreNotASCII(t *testing.T) {
	iss := leafIssuer(t, P256)
	tmpl := &x509.Certificate{
		SerialNumber: newSerial(), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		EmailAddresses: []string{"dän@example.com"},
	}
	spki, err := x509.MarshalPKIXPublicKey(iss.pub)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := iss.signLeaf(tmpl, iss.pub, spki); err == nil {
		t.Error("an address outside of ASCII was certified")
	}
}

// TestLeafOfOtherSigners goes through crypto/x509, which checks what a device
// signed.
func TestLeafOfOtherSigners(t *testing.T) {
	iss := leafIssuer(t, P256)
	spki, err := x509.MarshalPKIXPublicKey(iss.pub)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: newSerial(), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames: []string{"www.example.com"},
	}
	iss.signer = brokenSigner{iss.signer}
	if _, err := iss.signLeaf(tmpl, iss.pub, spki); err == nil {
		t.Error("a wrong signature of a device was taken")
	}
	sameLeaf(t, "P-384 CA", leafIssuer(t, P384), tmpl, iss.pub)
}

// brokenSigner signs something else.
type brokenSigner struct{ crypto.Signer }

func (s brokenSigner) Sign(r io.Reader, digest []byte, o crypto.SignerOpts) ([]byte, error) {
	return s.Signer.Sign(r, make([]byte, len(digest)), o)
}

// leafIssuer returns an issuer with a certificate of its own.
func leafIssuer(t *testing.T, alg Algorithm) *issuer {
	t.Helper()
	key, err := GenerateKey(alg)
	if err != nil {
		t.Fatal(err)
	}
	return issuerWith(t, key)
}

func issuerWith(t *testing.T, key crypto.Signer) *issuer {
	t.Helper()
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{Organization: []string{"Example"}, CommonName: "Servers"},
		SubjectKeyId: []byte("issuer's own key hash"),
		NotAfter:     time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &issuer{cert: cert, pub: key.Public(), signer: key}
}

var leafKeys = map[Algorithm]crypto.PublicKey{}

// publicOf returns a public key; one an algorithm is enough.
func publicOf(t *testing.T, alg Algorithm) crypto.PublicKey {
	t.Helper()
	if leafKeys[alg] == nil {
		key, err := GenerateKey(alg)
		if err != nil {
			t.Fatal(err)
		}
		leafKeys[alg] = key.Public()
	}
	return leafKeys[alg]
}

func manyNames(n int) []string {
	var list []string
	for i := range n {
		list = append(list, strings.Repeat("x", i%60+1)+".example.com")
	}
	return list
}
