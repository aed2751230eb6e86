package join

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/durable"
)

// hostKey is the host's own key. It never leaves the host.
type hostKey struct{ crypto.Signer }

// key returns the host's key, which is made the first time.
func (h Host) key() (hostKey, error) {
	path := h.path(KeyFile)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return hostKey{}, postern.Errorf(postern.Unavailable, "the directory of the host's key: %w", err)
	}
	data, err := durable.ReadSecret(path)
	if errors.Is(err, fs.ErrNotExist) {
		h.next()
		data, err = makeKey(path)
	}
	if err != nil {
		return hostKey{}, err
	}
	defer clear(data)
	block, _ := pem.Decode(data)
	if block == nil {
		return hostKey{}, postern.Errorf(postern.Internal, "%s holds no key", path).
			WithHint("remove the file, and invite the host again")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	signer, ok := key.(crypto.Signer)
	if err != nil || !ok {
		return hostKey{}, postern.Errorf(postern.Internal, "%s holds no key that signs", path).
			WithHint("remove the file, and invite the host again")
	}
	return hostKey{signer}, nil
}

func makeKey(path string) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	data := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	if err := durable.Ensure(path, data, 0o600); err != nil {
		return nil, notWritten(path, err)
	}
	return durable.ReadSecret(path)
}

// request returns a certificate request for the key (PKCS#10, PEM).
func (k hostKey) request() (string, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, new(x509.CertificateRequest), k.Signer)
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})), err
}

// check fails unless a chain (PEM) is a client certificate of the key under one of the roots.
func (k hostKey) check(chain string, roots *x509.CertPool) error {
	bad := func(why string) error {
		return postern.Errorf(postern.Denied, "the server sent a client certificate that %s", why)
	}
	certs, err := parseChain([]byte(chain))
	if err != nil {
		return bad("cannot be read")
	}
	pub, ok := k.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !pub.Equal(certs[0].PublicKey) {
		return bad("is for another key")
	}
	pools := x509.VerifyOptions{
		Roots: roots, Intermediates: x509.NewCertPool(),
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	for _, c := range certs[1:] {
		pools.Intermediates.AddCert(c)
	}
	if _, err := certs[0].Verify(pools); err != nil {
		return bad("does not verify: " + err.Error())
	}
	return nil
}

// parseChain reads certificates in PEM, at least one.
func parseChain(data []byte) ([]*x509.Certificate, error) {
	var list []*x509.Certificate
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		list = append(list, c)
	}
	if len(list) == 0 {
		return nil, postern.Errorf(postern.Invalid, "no certificate")
	}
	return list, nil
}

// due reports whether what is valid from one time to another is to be renewed: when a
// third of the time is left.
func due(from, to time.Time) bool { return time.Now().After(to.Add(-to.Sub(from) / 3)) }
