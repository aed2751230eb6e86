package cli

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"os"
	"testing"

	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/state"
)

func writeFile(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// clientCSR makes a key and a request (PEM) for it.
func clientCSR(t *testing.T) (*ecdsa.PrivateKey, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	der, err := x509.CreateCertificateRequest(rand.Reader, new(x509.CertificateRequest), key)
	must(t, err)
	return key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

// rootOf reads the root certificate of a state.
func rootOf(t *testing.T, dir string) *x509.Certificate {
	t.Helper()
	st, err := state.Open(t.Context(), dir)
	must(t, err)
	defer st.Close()
	authority, err := ca.Open(t.Context(), ca.Config{}, st.Store.CA())
	must(t, err)
	return authority.Root()
}
