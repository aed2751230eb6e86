package posterntest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// SecurityKeyProvider is a library that gives ssh and ssh-keygen FIDO2 keys in software, of
// a maker of its own.
type SecurityKeyProvider struct {
	Library string         // for SecurityKeyProvider, and ssh-keygen -w
	Roots   *x509.CertPool // the maker's
	RootPEM []byte         // the same
	Env     []string       // for ssh and ssh-keygen: the environment, in which its PIN is typed
	dir     string
}

// NewSecurityKeyProvider builds the library.
func NewSecurityKeyProvider(t testing.TB) *SecurityKeyProvider {
	t.Helper()
	Need(t, "cc")
	if _, err := os.Stat("/usr/include/openssl/evp.h"); err != nil {
		Missing(t, "needs OpenSSL's headers (libssl-dev)")
	}
	p := &SecurityKeyProvider{dir: OpenDir(t), Roots: x509.NewCertPool()}
	p.Library = filepath.Join(p.dir, "provider.so")
	if b, err := exec.Command("cc", "-shared", "-fPIC", "-O", "-Wall", "-Werror", "-Wno-deprecated-declarations", "-o",
		p.Library, filepath.Join(ModuleDir(t), "internal/posterntest/securitykey/provider.c"),
		"-lcrypto").CombinedOutput(); err != nil {
		t.Fatalf("building the provider: %v\n%s", err, b)
	}
	p.Env = append(os.Environ(), "POSTERN_SK="+p.dir, "SSH_ASKPASS="+filepath.Join(p.dir, "pin.sh"),
		"SSH_ASKPASS_REQUIRE=force")
	p.write(t, "pin", "739154", 0o644)
	p.TypePIN(t, "739154")
	p.attestation(t)
	return p
}

// TypePIN sets what is typed when the PIN is asked for.
func (p *SecurityKeyProvider) TypePIN(t testing.TB, pin string) {
	t.Helper()
	p.write(t, "pin.sh", fmt.Sprintf("#!/bin/sh\necho '%s'\n", pin), 0o755)
}

// Touch sets whether the FIDO2 key is touched when it waits for that.
func (p *SecurityKeyProvider) Touch(t testing.TB, touched bool) {
	t.Helper()
	if !touched {
		p.write(t, "untouched", "", 0o644)
	} else if err := os.Remove(filepath.Join(p.dir, "untouched")); err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
}

func (p *SecurityKeyProvider) write(t testing.TB, name, content string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(p.dir, name), []byte(content), mode); err != nil {
		t.Fatal(err)
	}
}

// attestation makes the maker's root, and the key and certificate that sign attestations.
func (p *SecurityKeyProvider) attestation(t testing.TB) {
	t.Helper()
	key := func() *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	sign := func(c, issuer *x509.Certificate, public *ecdsa.PublicKey, by *ecdsa.PrivateKey) *x509.Certificate {
		c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().AddDate(20, 0, 0)
		c.BasicConstraintsValid = true
		der, err := x509.CreateCertificate(rand.Reader, c, issuer, public, by)
		if err != nil {
			t.Fatal(err)
		}
		made, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return made
	}
	aaguid, err := asn1.Marshal([]byte("postern software"))
	if err != nil {
		t.Fatal(err)
	}
	rootKey, leafKey := key(), key()
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), IsCA: true, Subject: pkix.Name{CommonName: "Software FIDO2 keys"},
		KeyUsage: x509.KeyUsageCertSign,
	}
	root = sign(root, root, &rootKey.PublicKey, rootKey)
	p.Roots.AddCert(root)
	p.RootPEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Raw})
	leaf := sign(&x509.Certificate{
		SerialNumber: big.NewInt(2),
		Subject: pkix.Name{
			Country: []string{"SE"}, Organization: []string{"Software Keys"}, CommonName: "Software key 1",
			OrganizationalUnit: []string{"Authenticator Attestation"},
		},
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 45724, 1, 1, 4}, Value: aaguid}},
	}, root, &leafKey.PublicKey, rootKey)
	p.write(t, "attestation.der", string(leaf.Raw), 0o644)
	der, err := x509.MarshalPKCS8PrivateKey(leafKey)
	if err != nil {
		t.Fatal(err)
	}
	p.write(t, "attestation.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), 0o644)
}
