package store

import (
	"context"
	"strings"

	"github.com/postern-project/postern"
)

// PersonNamed returns the name of the person that a name from another system
// stands for: a person's name, in any case, or their e-mail address; "" if there is
// no such person.
func (db *DB) PersonNamed(ctx context.Context, name string) (string, error) {
	return readOne(ctx, db, func(ctx context.Context, tx *Tx) (string, error) {
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
