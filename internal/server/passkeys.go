package server

import (
	"context"
	"errors"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/passkey"
	"github.com/postern-project/postern/internal/portal"
	"github.com/postern-project/postern/internal/store"
)

// portalPasskeys returns the passkeys of a portal, nil where its address is without a name.
func portalPasskeys(ctx context.Context, db *store.DB, c portal.Config) (portal.Passkeys, error) {
	p, err := newPasskeys(ctx, db, c)
	if e, ok := errors.AsType[*postern.Error](err); ok && e.Code == postern.Invalid {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return p, nil
}

// newPasskeys returns the relying party that the portal is.
func newPasskeys(ctx context.Context, db *store.DB, c portal.Config) (*passkey.Party, error) {
	secret, err := db.Portal().PortalKey(ctx)
	if err != nil {
		return nil, err
	}
	return passkey.New(passkey.Config{URL: c.URL, Name: c.Name, Secret: secret}, db.Passkeys(), db)
}
