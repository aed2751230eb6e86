package store

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/postern-project/postern"
)

// People keeps people, their credentials, and the accounts by which hosts know them.
// Each method is a transaction of its own; those of [Tx] do the same as part of another.
type People struct{ *DB }

// People returns the people in the database.
func (db *DB) People() People { return People{db} }

// AddPerson is [Tx.AddPerson] in a transaction of its own.
func (s People) AddPerson(ctx context.Context, p postern.Person) error {
	return s.Write(ctx, func(ctx context.Context, tx *Tx) error { return tx.AddPerson(ctx, p) })
}

// SetPersonStatus is [Tx.SetPersonStatus] in a transaction of its own.
func (s People) SetPersonStatus(ctx context.Context, name string, status postern.PersonStatus) error {
	return s.Write(ctx, func(ctx context.Context, tx *Tx) error { return tx.SetPersonStatus(ctx, name, status) })
}

// Person is [Tx.Person] in a transaction of its own.
func (s People) Person(ctx context.Context, name string) (postern.Person, error) {
	return readOne(ctx, s.DB, func(ctx context.Context, tx *Tx) (postern.Person, error) {
		return tx.Person(ctx, name)
	})
}

// SuspendedBy returns the name of the directory that has suspended a person; "" if
// none has.
func (s People) SuspendedBy(ctx context.Context, name string) (directory string, err error) {
	return readOne(ctx, s.DB, func(ctx context.Context, tx *Tx) (directory string, err error) {
		err = tx.QueryRow(ctx, `SELECT directory FROM directory_people WHERE person = $1 AND suspended = 1`, name).
			Scan(&directory)
		if errors.Is(err, sql.ErrNoRows) {
			err = nil
		}
		return directory, err
	})
}

// PersonByEmail is [Tx.PersonByEmail] in a transaction of its own.
func (s People) PersonByEmail(ctx context.Context, email string) (postern.Person, error) {
	return readOne(ctx, s.DB, func(ctx context.Context, tx *Tx) (postern.Person, error) {
		return tx.PersonByEmail(ctx, email)
	})
}

// Names returns the names of all people.
func (s People) Names(ctx context.Context) ([]string, error) {
	list, err := s.All(ctx)
	names := make([]string, len(list))
	for i, p := range list {
		names[i] = p.Name
	}
	return names, err
}

// All is [Tx.People] in a transaction of its own.
func (s People) All(ctx context.Context) ([]postern.Person, error) {
	return readOne(ctx, s.DB, func(ctx context.Context, tx *Tx) ([]postern.Person, error) { return tx.People(ctx) })
}

// Page returns at most n people behind a name, by name, but those who were removed.
func (s People) Page(ctx context.Context, after string, n int) ([]postern.Person, error) {
	return readOne(ctx, s.DB, func(ctx context.Context, tx *Tx) ([]postern.Person, error) {
		name := `o.name` + s.backend.bytewise()
		return tx.people(ctx, `WHERE p.name IN (SELECT o.name FROM people o
			WHERE o.status <> 'removed' AND `+name+` > $1 ORDER BY `+name+limit(n)+`)`, after)
	})
}

// PutCredential is [Tx.PutCredential] in a transaction of its own.
func (s People) PutCredential(ctx context.Context, c postern.Credential) error {
	return s.Write(ctx, func(ctx context.Context, tx *Tx) error { return tx.PutCredential(ctx, c) })
}

// Credential is [Tx.Credential] in a transaction of its own.
func (s People) Credential(
	ctx context.Context, kind postern.CredentialKind, id string,
) (postern.Credential, error) {
	return readOne(ctx, s.DB, func(ctx context.Context, tx *Tx) (postern.Credential, error) {
		return tx.Credential(ctx, kind, id)
	})
}

// CredentialsOf is [Tx.CredentialsOf] in a transaction of its own.
func (s People) CredentialsOf(ctx context.Context, person string) ([]postern.Credential, error) {
	return readOne(ctx, s.DB, func(ctx context.Context, tx *Tx) ([]postern.Credential, error) {
		return tx.CredentialsOf(ctx, person)
	})
}

// SetCredentialStatus is [Tx.SetCredentialStatus] in a transaction of its own.
func (s People) SetCredentialStatus(
	ctx context.Context, kind postern.CredentialKind, id string, status postern.CredentialStatus,
) error {
	return s.Write(ctx, func(ctx context.Context, tx *Tx) error {
		return tx.SetCredentialStatus(ctx, kind, id, status)
	})
}

// TouchCredential is [Tx.TouchCredential] in a transaction of its own.
func (s People) TouchCredential(
	ctx context.Context, kind postern.CredentialKind, id string, used time.Time,
) error {
	return s.Write(ctx, func(ctx context.Context, tx *Tx) error { return tx.TouchCredential(ctx, kind, id, used) })
}
