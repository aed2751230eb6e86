package server

import (
	"context"
	"crypto/x509"
	"log/slog"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/front"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/store"
)

// runtime is the part of the server that the HTTPS server uses.
func (s *server) runtime() front.Runtime {
	return front.Runtime{
		Registry:   frontRegistry{s.state.Store},
		People:     s.state.Store.People().All,
		Generation: s.storeGeneration,
		ClientCAs:  func() []*x509.Certificate { return s.authority.Intermediates(ca.Client) },
		Issue:      s.issueSite,
		Chain:      s.authority.ChainFor,
		Writable:   s.health.writable,
		Lost: func(n int64, err error) {
			s.log.Error("events are lost: the timeline could not be written until the end",
				slog.Int64(postern.LogLost, n),
				slog.String(postern.LogReason, err.Error()))
		},
		Log: func(ctx context.Context, e ...postern.Event) error { return s.state.Store.Append(ctx, e...) },
	}
}

// frontRegistry looks up certificates for the HTTPS server.
type frontRegistry struct{ db *store.DB }

// Certificate returns a certificate's status and its person.
func (r frontRegistry) Certificate(ctx context.Context, serial string, issuer *x509.Certificate) (c postern.Credential,
	p postern.Person, err error,
) {
	err = r.db.Read(ctx, func(ctx context.Context, tx *store.Tx) error {
		issued, revoked, err := tx.IssuedBy(ctx, serial, issuer.Raw)
		switch {
		case err != nil:
			return err
		case !issued:
			return postern.Errorf(postern.NotFound, "%s did not issue %s", issuer.Subject, serial)
		}
		if c, err = tx.Credential(ctx, postern.X509Certificate, serial); err != nil {
			return err
		}
		if revoked {
			c.Status = postern.CredentialRevoked
		}
		p, err = tx.Person(ctx, c.Person)
		return err
	})
	return c, p, err
}

// PersonByEmail returns the person with an address.
func (r frontRegistry) PersonByEmail(ctx context.Context, email string) (postern.Person, error) {
	return r.db.People().PersonByEmail(ctx, email)
}
