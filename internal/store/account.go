package store

import (
	"context"
	"database/sql"
	"errors"
	"strings"

	"github.com/postern-project/postern"
)

// PersonNamed returns the name of the person that a name from another system
// stands for: an account's, a person's name, in any case, or their e-mail address;
// "" if there is no such person.
func (s People) PersonNamed(ctx context.Context, name string) (string, error) {
	name, err := s.AccountPerson(ctx, name, "")
	if err != nil {
		return "", err
	}
	return readOne(ctx, s.DB, func(ctx context.Context, tx *Tx) (string, error) {
		for _, look := range []func(context.Context, string) (postern.Person, error){tx.Person, tx.PersonByEmail} {
			p, err := look(ctx, strings.ToLower(name))
			if err == nil {
				return p.Name, nil
			}
			if postern.CodeOf(err) != postern.NotFound {
				return "", err
			}
		}
		return "", nil
	})
}

// Accounts returns the accounts by which hosts know people, by name and host.
func (s People) Accounts(ctx context.Context) ([]postern.Account, error) {
	return readOne(ctx, s.DB, func(ctx context.Context, tx *Tx) ([]postern.Account, error) { return tx.accounts(ctx) })
}

func (tx *Tx) accounts(ctx context.Context) ([]postern.Account, error) {
	return tx.accountsWhere(ctx, "TRUE")
}

// accountsWhere returns the accounts of which a condition holds.
func (tx *Tx) accountsWhere(ctx context.Context, where string, args ...any) ([]postern.Account, error) {
	rows, err := tx.Query(ctx, `SELECT name, host, person, any_case FROM accounts WHERE `+where+`
		ORDER BY name, host`, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []postern.Account
	for rows.Next() {
		var a postern.Account
		var anyCase int64
		if err := rows.Scan(&a.Name, &a.Host, &a.Person, &anyCase); err != nil {
			return nil, err
		}
		a.AnyCase = anyCase != 0
		all = append(all, a)
	}
	return all, rows.Err()
}

// AddAccount says whose an account is. One that is said already is a
// [postern.Conflict].
func (s People) AddAccount(ctx context.Context, a postern.Account) error {
	if err := a.Validate(); err != nil {
		return err
	}
	a.Host = strings.ToLower(a.Host)
	return s.Write(ctx, func(ctx context.Context, tx *Tx) error {
		if a.Person != "" {
			if _, err := tx.Person(ctx, a.Person); err != nil {
				return err
			}
		}
		var anyCase int64
		if a.AnyCase {
			anyCase = 1
		}
		n, err := tx.Exec(ctx, `INSERT INTO accounts (name, host, person, any_case) VALUES ($1, $2, $3, $4)
			ON CONFLICT DO NOTHING`,
			a.Name, a.Host, a.Person, anyCase)
		if err != nil {
			return err
		}
		if n == 0 {
			return postern.Errorf(postern.Conflict, "whose the account %q is has been said already", a.Name)
		}
		return tx.accountChanged(ctx, a, "account added")
	})
}

// RemoveAccount takes back whose an account is.
func (s People) RemoveAccount(ctx context.Context, name, host string) error {
	return s.Write(ctx, func(ctx context.Context, tx *Tx) error {
		a := postern.Account{Name: name, Host: strings.ToLower(host)}
		err := tx.QueryRow(ctx, `DELETE FROM accounts WHERE name = $1 AND host = $2
			RETURNING person`, a.Name, a.Host).Scan(&a.Person)
		if errors.Is(err, sql.ErrNoRows) {
			return postern.Errorf(postern.NotFound, "no account %q", name)
		}
		if err != nil {
			return err
		}
		return tx.accountChanged(ctx, a, "account removed")
	})
}

func (tx *Tx) accountChanged(ctx context.Context, a postern.Account, what string) error {
	e := postern.Event{Kind: postern.EventPersonChanged, Person: a.Person, Object: a.Name, Reason: what}
	if a.Host != "" {
		e.Details = map[string]string{"host": a.Host}
	}
	if err := tx.Append(ctx, e); err != nil {
		return err
	}
	return tx.Touch(ctx)
}

// AccountPerson returns the name of the person whose an account on a host is;
// see [postern.AccountPerson].
func (s People) AccountPerson(ctx context.Context, name, host string) (string, error) {
	// Of the others none speaks of name; each question of a login asks this.
	accounts, err := readOne(ctx, s.DB, func(ctx context.Context, tx *Tx) ([]postern.Account, error) {
		return tx.accountsWhere(ctx, `name = $1 OR any_case = 1 OR name LIKE '%*%'`, name)
	})
	if err != nil {
		return "", err
	}
	return postern.AccountPerson(accounts, name, host)
}
