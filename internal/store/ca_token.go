package store

import (
	"context"
	"strings"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/ca"
)

// AddAPIToken implements [ca.Store].
func (s CA) AddAPIToken(ctx context.Context, t ca.APIToken, event postern.Event) error {
	return s.Write(ctx, func(ctx context.Context, tx *Tx) error {
		n, err := tx.Exec(ctx, `INSERT INTO ca_tokens (name, hash, domains, created, expires)
			VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING`,
			t.Name, t.Hash, strings.Join(t.Domains, " "), micros(t.Created), micros(t.Expires))
		if err != nil {
			return err
		}
		if n == 0 {
			return postern.Errorf(postern.Conflict, "there is a token %q already", t.Name)
		}
		return tx.Append(ctx, event)
	})
}

const tokenColumns = `name, hash, domains, created, expires`

func scanToken(row scanner) (ca.APIToken, error) {
	var t ca.APIToken
	var domains string
	var created, expires int64
	err := row.Scan(&t.Name, &t.Hash, &domains, &created, &expires)
	t.Domains, t.Created, t.Expires = strings.Fields(domains), fromMicros(created), fromMicros(expires)
	return t, err
}

// APIToken implements [ca.Store].
func (s CA) APIToken(ctx context.Context, hash []byte) (ca.APIToken, error) {
	t, err := scanToken(s.row(ctx, `SELECT `+tokenColumns+` FROM ca_tokens WHERE hash = $1`, hash))
	return t, s.wrap(notFound(err, "there is no such token"), "read a token")
}

// APITokens implements [ca.Store].
func (s CA) APITokens(ctx context.Context) ([]ca.APIToken, error) {
	return readOne(ctx, s.DB, func(ctx context.Context, tx *Tx) ([]ca.APIToken, error) {
		rows, err := tx.Query(ctx, `SELECT `+tokenColumns+` FROM ca_tokens ORDER BY created, name`)
		if err != nil {
			return nil, err
		}
		defer rows.Close()
		var list []ca.APIToken
		for rows.Next() {
			t, err := scanToken(rows)
			if err != nil {
				return nil, err
			}
			list = append(list, t)
		}
		return list, rows.Err()
	})
}

// RemoveAPIToken implements [ca.Store].
func (s CA) RemoveAPIToken(ctx context.Context, name string, event postern.Event) error {
	return s.Write(ctx, func(ctx context.Context, tx *Tx) error {
		n, err := tx.Exec(ctx, `DELETE FROM ca_tokens WHERE name = $1`, name)
		if err != nil {
			return err
		}
		if n == 0 {
			return postern.Errorf(postern.NotFound, "there is no token %q", name)
		}
		return tx.Append(ctx, event)
	})
}
