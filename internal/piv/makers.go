package piv

import (
	"bytes"
	"crypto/x509"
	_ "embed"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/postern-project/postern"
)

// Makers are the CAs that vouch for YubiKeys.
type Makers struct{ roots, intermediates *x509.CertPool }

//go:embed yubico.pem
var yubico []byte

// Yubico returns the CAs of the maker, to which [Makers.Add] adds others.
func Yubico() *Makers {
	m := &Makers{x509.NewCertPool(), x509.NewCertPool()}
	if err := m.Add(yubico); err != nil {
		panic(err) // it is part of the program
	}
	return m
}

// Trusted returns [Yubico]'s CAs and those of a file, which [Makers.Add] reads. There may
// be no such file, and "" is none. It fails with [postern.Internal] for a file that cannot
// be used, since that is no fault of who sends an attestation.
func Trusted(file string) (*Makers, error) {
	m := Yubico()
	if file == "" {
		return m, nil
	}
	more, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	if err == nil {
		err = m.Add(more)
	}
	if err != nil {
		return nil, postern.Errorf(postern.Internal, "%s cannot be used: %w", filepath.Base(file), err).
			WithHint("correct or remove that file in the state directory")
	}
	return m, nil
}

// Add adds CAs, in PEM: a self-signed certificate as a root, another as an intermediate.
// It fails with [postern.Invalid] if there is none, or it cannot be read.
func (m *Makers) Add(text []byte) error {
	certs, err := certificates(text)
	if err != nil {
		return postern.Errorf(postern.Invalid, "the certificates of makers cannot be read: %w", err)
	}
	if len(certs) == 0 {
		return postern.Errorf(postern.Invalid, "no certificate of a maker is in it")
	}
	for _, c := range certs {
		if bytes.Equal(c.RawSubject, c.RawIssuer) {
			m.roots.AddCert(c)
		} else {
			m.intermediates.AddCert(c)
		}
	}
	return nil
}

// vouch checks that a maker vouches for a YubiKey. Intermediates come from the makers
// alone: an attestation brings none of its own, which a key in another YubiKey could sign.
func (m *Makers) vouch(device *x509.Certificate, now time.Time) error {
	_, err := device.Verify(x509.VerifyOptions{
		Roots: m.roots, Intermediates: m.intermediates, CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return postern.Errorf(postern.Denied, "no known maker vouches for this YubiKey: %s", device.Issuer).
			WithHint("an administrator who trusts the maker puts its root into piv-roots.pem in the state directory")
	}
	return nil
}
