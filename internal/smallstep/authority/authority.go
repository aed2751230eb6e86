// Package authority stands in for smallstep's CA, on which Caddy's own CA is
// built. Postern has a CA already: package front lets it issue what a
// configuration wants from Caddy's, so that none of this is called.
package authority

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"

	"github.com/smallstep/certificates/authority/provisioner"
	"github.com/smallstep/certificates/db"
)

var errUnused = errors.New("Caddy's own CA is not part of this program: its certificates are issued by Postern's")

// Authority issues nothing.
type Authority struct{}

// Option, Config and AuthConfig are what a CA is made from.
type (
	Option     func(*Authority) error
	Config     struct{ AuthorityConfig *AuthConfig }
	AuthConfig struct{}
)

// NewEmbedded fails.
func NewEmbedded(...Option) (*Authority, error) { return nil, errUnused }

// SignWithContext fails.
func (*Authority) SignWithContext(context.Context, *x509.CertificateRequest, provisioner.SignOptions,
	...provisioner.SignOption,
) ([]*x509.Certificate, error) {
	return nil, errUnused
}

// WithConfig and the other options change nothing.
func WithConfig(*Config) Option { return nil }

// WithX509Signer does nothing.
func WithX509Signer(*x509.Certificate, crypto.Signer) Option { return nil }

// WithX509SignerFunc does nothing.
func WithX509SignerFunc(func() ([]*x509.Certificate, crypto.Signer, error)) Option { return nil }

// WithX509RootCerts does nothing.
func WithX509RootCerts(...*x509.Certificate) Option { return nil }

// WithDatabase does nothing.
func WithDatabase(db.AuthDB) Option { return nil }
