package store

import (
	"context"

	"github.com/postern-project/postern"
)

// asked returns f for what a [postern.Asker] asks for: it fails with
// [postern.Denied], before anything is done, if the credential that they showed
// does not count any more. They may have been recovered since their request was
// let in.
func asked(f func(ctx context.Context, tx *Tx) error) func(ctx context.Context, tx *Tx) error {
	return func(ctx context.Context, tx *Tx) error {
		if err := tx.stillCounts(ctx, postern.AskerIn(ctx).Credential); err != nil {
			return err
		}
		return f(ctx, tx)
	}
}

// stillCounts fails unless a credential is active. What else than certificates is
// not kept here, such as a key that only a file of mappings names, nobody has
// switched off.
func (tx *Tx) stillCounts(ctx context.Context, l postern.Link) error {
	if l == (postern.Link{}) {
		return nil
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
	return postern.Errorf(postern.Denied, "What you came with does not count any more.")
}
