package store

import (
	"context"
	"database/sql"
	"errors"

	"github.com/postern-project/postern"
)

// WriteAs is [DB.Write] for what an actor asks for: it fails with
// [postern.Denied], before anything is done, unless the credential that they
// showed is valid at this moment. It may have been revoked since their request
// was accepted. Events without an address get the actor's.
func (db *DB) WriteAs(ctx context.Context, by postern.Actor, f func(ctx context.Context, tx *Tx) error) error {
	return db.Write(ctx, func(ctx context.Context, tx *Tx) error {
		if err := tx.checkCredential(ctx, by.Credential); err != nil {
			return err
		}
		tx.address = by.Address
		defer func() { tx.address = "" }()
		return f(ctx, tx)
	})
}

// errCredential refuses what an actor asks for whose credential is not valid.
var errCredential = postern.Errorf(postern.Denied, "The certificate or code that you came with is not valid any more.")

// checkCredential fails unless a credential is active. One that is not kept here
// cannot be switched off here, such as a key that only a file of mappings names;
// but every certificate and every API token is kept.
func (tx *Tx) checkCredential(ctx context.Context, l postern.Link) error {
	switch l.Kind {
	case "":
		return nil
	case string(postern.APIToken):
		return tx.checkToken(ctx, l.ID)
	}
	c, err := tx.Credential(ctx, postern.CredentialKind(l.Kind), l.ID)
	switch {
	case err == nil && c.Status == postern.CredentialActive:
		return nil
	case err != nil && postern.CodeOf(err) != postern.NotFound:
		return err
	case err != nil && l.Kind != string(postern.X509Certificate):
		return nil
	}
	return errCredential
}

func (tx *Tx) checkToken(ctx context.Context, name string) error {
	var expires int64
	err := tx.QueryRow(ctx, `SELECT expires FROM ca_tokens WHERE name = $1`, name).Scan(&expires)
	switch {
	case errors.Is(err, sql.ErrNoRows), err == nil && expires != 0 && expires <= micros(tx.db.Now()):
		return errCredential
	}
	return err
}
