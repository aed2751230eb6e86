package posterntest

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"testing"
)

// NewCSR makes a key and a certificate request (PKCS#10, PEM) for it, which asks
// for nothing more.
func NewCSR(t testing.TB) (*ecdsa.PrivateKey, []byte) {
	t.Helper()
	key := NewKey(t)
	der, err := x509.CreateCertificateRequest(rand.Reader, new(x509.CertificateRequest), key)
	if err != nil {
		t.Fatal(err)
	}
	return key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}
