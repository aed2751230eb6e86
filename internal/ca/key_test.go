package ca_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/posterntest"
)

func prime(t testing.TB, bits int) *big.Int {
	t.Helper()
	p, err := rand.Prime(rand.Reader, bits)
	must(t, err)
	return p
}

func TestWeakKeys(t *testing.T) {
	p, q := prime(t, 1024), prime(t, 1024)
	next := new(big.Int).Add(p, big.NewInt(2))
	for !next.ProbablyPrime(10) {
		next.Add(next, big.NewInt(2))
	}
	n := new(big.Int).Mul(p, q)
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	must(t, err)
	for _, c := range []struct {
		name  string
		key   crypto.PublicKey
		words string
	}{
		{"short RSA", &rsa.PublicKey{N: new(big.Int).Mul(prime(t, 512), prime(t, 512)), E: 65537}, "at least 2048"},
		{"long RSA", &rsa.PublicKey{N: new(big.Int).SetBit(new(big.Int), 9000, 1), E: 65537}, "at most 8192"},
		{"exponent 3", &rsa.PublicKey{N: n, E: 3}, "exponent 3"},
		{"exponent 1", &rsa.PublicKey{N: n, E: 1}, "exponent 1"},
		{"even exponent", &rsa.PublicKey{N: n, E: 65538}, "exponent 65538"},
		{"even modulus", &rsa.PublicKey{N: new(big.Int).Lsh(p, 1100), E: 65537}, "small factor"},
		{"small factor", &rsa.PublicKey{N: new(big.Int).Mul(n, big.NewInt(751)), E: 65537}, "small factor"},
		{"close primes", &rsa.PublicKey{N: new(big.Int).Mul(p, next), E: 65537}, "close together"},
		{"a square", &rsa.PublicKey{N: new(big.Int).Mul(p, p), E: 65537}, "close together"},
		{"Infineon's", &rsa.PublicKey{N: infineonModulus(), E: 65537}, "CVE-2017-15361"},
		{"P-224", p224.Public(), "P-224"},
		{"no key", nil, "not accepted"},
	} {
		wantCode(t, ca.CheckKey(c.key), postern.Invalid, c.words)
	}
	for _, alg := range []ca.Algorithm{ca.P256, ca.P384, ca.RSA3072, ca.Ed25519} {
		key, err := ca.GenerateKey(alg)
		must(t, err)
		if err := ca.CheckKey(key.Public()); err != nil {
			t.Errorf("%s: %v", alg, err)
		}
	}
}

// infineonModulus returns a number of the form of ROCA's moduli: a power of
// 65537 modulo the product of the primes to 167.
func infineonModulus() *big.Int {
	m := big.NewInt(1)
	for p := int64(2); p <= 167; p++ {
		if big.NewInt(p).ProbablyPrime(0) {
			m.Mul(m, big.NewInt(p))
		}
	}
	n := new(big.Int).Exp(big.NewInt(65537), big.NewInt(1234567), m)
	for k := new(big.Int).Lsh(big.NewInt(1), 2048); ; k.Add(k, big.NewInt(1)) {
		c := new(big.Int).Add(n, new(big.Int).Mul(k, m))
		if new(big.Int).GCD(nil, nil, c, small()).Cmp(big.NewInt(1)) == 0 {
			return c
		}
	}
}

// small is the product of the odd primes below 752.
func small() *big.Int {
	m := big.NewInt(1)
	for p := int64(3); p < 752; p += 2 {
		if big.NewInt(p).ProbablyPrime(0) {
			m.Mul(m, big.NewInt(p))
		}
	}
	return m
}

func TestCAKeyIsNotCertified(t *testing.T) {
	keys := keyRing{}
	a, _ := newAuthority(t, ca.Config{KeyURI: "test:", Keys: keys})
	for _, id := range []string{"root", "server", "client", "ssh-user"} {
		der, err := x509.CreateCertificateRequest(rand.Reader,
			&x509.CertificateRequest{DNSNames: []string{"a.example"}}, keys["test:"+id])
		must(t, err)
		_, err = a.IssueCSR(t.Context(), der, ca.SignRequest{Profile: ca.ProfileServer})
		wantCode(t, err, postern.Denied, "key of the "+id+" CA")
	}
}

func TestKeyFiles(t *testing.T) {
	openssl := posterntest.Need(t, "openssl")
	for _, alg := range []ca.Algorithm{ca.P256, ca.RSA3072, ca.Ed25519} {
		key, err := ca.GenerateKey(alg)
		must(t, err)
		sealed, err := ca.EncodeKey(key, []byte("correct horse"))
		must(t, err)
		back, err := ca.ParseKey(sealed, []byte("correct horse"))
		must(t, err)
		if !back.(interface{ Equal(crypto.PrivateKey) bool }).Equal(key) {
			t.Errorf("%s: another key comes back", alg)
		}
		for _, wrong := range []string{"", "wrong"} {
			if _, err := ca.ParseKey(sealed, []byte(wrong)); err == nil {
				t.Errorf("%s: opened by %q", alg, wrong)
			}
		}
		runs(t, openssl, "pkey", "-in", write(t, "k.pem", sealed), "-passin",
			"file:"+write(t, "pw", []byte("correct horse\n")), "-noout")
		file := write(t, "new.pem", nil)
		runs(t, openssl, "pkcs8", "-topk8", "-in", write(t, "k.pem", must2(ca.EncodeKey(key, nil))), "-passout",
			"pass:correct horse", "-out", file)
		if _, err := ca.ParseKey(must2(os.ReadFile(file)), []byte("correct horse")); err != nil {
			t.Errorf("%s: openssl's file: %v", alg, err)
		}
	}
}

func must2[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func FuzzParseCSR(f *testing.F) {
	for _, tmpl := range []x509.CertificateRequest{
		{DNSNames: []string{"www.example.com", "*.example.com"}},
		{EmailAddresses: []string{"dan@example.com"}},
	} {
		data := csr(f, tmpl)
		f.Add(data)
		block, _ := pem.Decode(data)
		f.Add(block.Bytes)
	}
	f.Add([]byte("-----BEGIN CERTIFICATE REQUEST-----\nMAA=\n-----END CERTIFICATE REQUEST-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := ca.ParseCSR(data)
		if err != nil {
			if postern.CodeOf(err) != postern.Invalid {
				t.Errorf("%v is %v", err, postern.CodeOf(err))
			}
			return
		}
		if ca.CheckKey(c.PublicKey) != nil || c.CheckSignature() != nil {
			t.Error("a weak key or a wrong signature passed")
		}
		for _, n := range c.Names {
			if clean, err := ca.CleanName(n); err != nil || clean != n {
				t.Errorf("the name %q is not clean", n)
			}
		}
	})
}

func FuzzParsePKCS12(f *testing.F) {
	a, _ := newAuthority(f, ca.Config{})
	out, err := a.IssueClient(f.Context(), ca.ClientRequest{Person: "dan"})
	must(f, err)
	for _, legacy := range []bool{false, true} {
		data, err := ca.EncodePKCS12(out.Key, out, "secret", legacy)
		must(f, err)
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		key, cert, _, err := ca.ParsePKCS12(data, "secret")
		if err == nil && !cert.PublicKey.(interface{ Equal(crypto.PublicKey) bool }).Equal(key.Public()) {
			t.Error("the key is not the certificate's")
		}
	})
}

func FuzzOCSP(f *testing.F) {
	a, _ := newAuthority(f, ca.Config{})
	out, err := a.IssueClient(f.Context(), ca.ClientRequest{Person: "dan"})
	must(f, err)
	f.Add(ocspQuery(f, out, nil))
	f.Add(ocspQuery(f, out, []byte("a nonce of some length")))
	f.Fuzz(func(t *testing.T, data []byte) {
		answer, err := a.OCSP(t.Context(), data)
		if err != nil || len(answer.DER) == 0 {
			t.Errorf("%x: %v", answer.DER, err)
		}
	})
}

func TestPKCS12(t *testing.T) {
	openssl := posterntest.Need(t, "openssl")
	a, _ := newAuthority(t, ca.Config{})
	out, err := a.IssueClient(t.Context(), ca.ClientRequest{Person: "dan", Label: "laptop"})
	must(t, err)
	for _, legacy := range []bool{false, true} {
		data, err := ca.EncodePKCS12(out.Key, out, "secret", legacy)
		must(t, err)
		key, cert, chain, err := ca.ParsePKCS12(data, "secret")
		must(t, err)
		if !cert.Equal(out.Leaf) || len(chain) != 2 || key == nil {
			t.Errorf("%s and %d more come back", cert.Subject, len(chain))
		}
		if _, _, _, err := ca.ParsePKCS12(data, "wrong"); err == nil {
			t.Error("opened by a wrong password")
		}
		args := []string{"pkcs12", "-in", write(t, "c.p12", data), "-passin", "pass:secret", "-noenc"}
		if legacy {
			args = append(args, "-legacy")
		}
		text := runs(t, openssl, args...)
		if bytes.Count([]byte(text), []byte("BEGIN CERTIFICATE")) != 3 {
			t.Errorf("openssl pkcs12: %s", text)
		}
		if name := "friendlyName: dan laptop until " + out.Leaf.NotAfter.UTC().
			Format(time.DateOnly); !strings.Contains(text, name) {
			t.Errorf("openssl pkcs12: no %q in\n%s", name, text)
		}
	}
	_, err = ca.EncodePKCS12(out.Key, out, "", false)
	wantCode(t, err, postern.Invalid, "needs a password")
}

// TestPKCS12MadeToWasteTime has a MAC of two thousand million rounds.
func TestPKCS12MadeToWasteTime(t *testing.T) {
	a, _ := newAuthority(t, ca.Config{})
	out, err := a.IssueClient(t.Context(), ca.ClientRequest{Person: "dan"})
	must(t, err)
	data, err := ca.EncodePKCS12(out.Key, out, "secret", true)
	must(t, err)
	var pfx struct {
		Version  int
		AuthSafe asn1.RawValue
		Mac      struct {
			Digest     asn1.RawValue
			Salt       []byte
			Iterations int `asn1:"optional,default:1"`
		}
	}
	_, err = asn1.Unmarshal(data, &pfx)
	must(t, err)
	pfx.Mac.Iterations = 1 << 31
	slow, err := asn1.Marshal(pfx)
	must(t, err)
	_, _, _, err = ca.ParsePKCS12(slow, "secret")
	wantCode(t, err, postern.Invalid, "rounds of hashing")
}
