package store

import (
	"context"
	"slices"
	"strings"

	"github.com/postern-project/postern"
)

// AddPerson adds a person. It cleans and checks p; a zero
// Created is now, an empty Status active. A name that exists already, or ever
// existed, and an address that another person has are [postern.Conflict].
func (tx *Tx) AddPerson(ctx context.Context, p postern.Person) error {
	p, err := tx.cleanPerson(p)
	if err != nil {
		return err
	}
	if old, err := tx.Person(ctx, p.Name); err == nil {
		if old.Status == postern.PersonRemoved {
			return postern.Errorf(postern.Conflict,
				"the name %s was that of a person who was removed; names are not given twice", p.Name)
		}
		return postern.Errorf(postern.Conflict, "there is a person %s already", p.Name)
	}
	if err := tx.emailFree(ctx, p); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, `INSERT INTO people (name, email, full_name, status, created)
		VALUES ($1, $2, $3, $4, $5)`,
		p.Name, p.Email, p.FullName, string(p.Status), micros(p.Created)); err != nil {
		return err
	}
	if err := tx.setGroups(ctx, p); err != nil {
		return err
	}
	return tx.Touch(ctx)
}

// cleanPerson returns p as it is kept, or says what is wrong with it.
func (tx *Tx) cleanPerson(p postern.Person) (postern.Person, error) {
	if !postern.ValidName(p.Name) {
		return p, postern.Errorf(postern.Invalid, "%q cannot be a person's name", p.Name).
			WithHint("a name is 1 to 64 of a-z 0-9 . _ - and begins with a letter or a digit")
	}
	if p.Email != "" {
		email, err := postern.CleanEmail(p.Email)
		if err != nil {
			return p, err
		}
		p.Email = email
	}
	p.FullName = strings.TrimSpace(p.FullName)
	if len(p.FullName) > 256 || strings.ContainsFunc(p.FullName, func(r rune) bool { return r < ' ' || r == 0xfffd }) {
		return p, postern.Errorf(postern.Invalid, "a full name is at most 256 bytes of text")
	}
	for _, g := range p.Groups {
		if !postern.ValidName(g) {
			return p, postern.Errorf(postern.Invalid, "%q cannot be a group's name", g).
				WithHint("a name is 1 to 64 of a-z 0-9 . _ - and begins with a letter or a digit")
		}
	}
	p.Groups = slices.Compact(slices.Sorted(slices.Values(p.Groups)))
	switch p.Status {
	case "":
		p.Status = postern.PersonActive
	case postern.PersonActive, postern.PersonSuspended:
	default:
		return p, postern.Errorf(postern.Invalid, "a person is not added %q", p.Status)
	}
	if p.Created.IsZero() {
		p.Created = tx.db.Now()
	}
	return p, nil
}

// emailFree fails if another person has the address.
func (tx *Tx) emailFree(ctx context.Context, p postern.Person) error {
	if p.Email == "" {
		return nil
	}
	switch other, err := tx.PersonByEmail(ctx, p.Email); {
	case err == nil && other.Name != p.Name:
		return postern.Errorf(postern.Conflict, "the address %s is that of %s already", p.Email, other.Name)
	case err != nil && postern.CodeOf(err) != postern.NotFound:
		return err
	}
	return nil
}

func (tx *Tx) setGroups(ctx context.Context, p postern.Person) error {
	if _, err := tx.Exec(ctx, `DELETE FROM person_groups WHERE person = $1`, p.Name); err != nil {
		return err
	}
	for _, g := range p.Groups {
		if _, err := tx.Exec(ctx, `INSERT INTO person_groups (person, name) VALUES ($1, $2)`, p.Name, g); err != nil {
			return err
		}
	}
	return nil
}

// ChangePerson sets the address, full name and groups of the person p.Name. It
// ignores the other fields of p.
func (tx *Tx) ChangePerson(ctx context.Context, p postern.Person) error {
	old, err := tx.Person(ctx, p.Name)
	if err != nil {
		return err
	}
	if old.Status == postern.PersonRemoved {
		return postern.Errorf(postern.Conflict, "the person %s was removed", p.Name)
	}
	p.Status, p.Created = old.Status, old.Created
	p.Groups = slices.DeleteFunc(slices.Clone(p.Groups), func(g string) bool {
		return slices.Contains(old.DirectoryGroups, g)
	})
	if p, err = tx.cleanPerson(p); err != nil {
		return err
	}
	if err := tx.emailFree(ctx, p); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, `UPDATE people SET email = $1, full_name = $2
		WHERE name = $3`, p.Email, p.FullName, p.Name); err != nil {
		return err
	}
	if err := tx.setGroups(ctx, p); err != nil {
		return err
	}
	return tx.Touch(ctx)
}

// SetPersonStatus suspends, resumes or removes a person. Removing takes the
// person's address and groups, revokes every credential, and cannot be undone.
func (tx *Tx) SetPersonStatus(ctx context.Context, name string, status postern.PersonStatus) error {
	old, err := tx.Person(ctx, name)
	if err != nil {
		return err
	}
	if old.Status == postern.PersonRemoved {
		return postern.Errorf(postern.Conflict, "the person %s was removed", name)
	}
	switch status {
	case postern.PersonActive:
	case postern.PersonSuspended:
		if err := tx.dropLinks(ctx, name, ""); err != nil {
			return err
		}
	case postern.PersonRemoved:
		if err := tx.strip(ctx, name); err != nil {
			return err
		}
	default:
		return postern.Errorf(postern.Invalid, "%q is no status of a person", status)
	}
	if _, err := tx.Exec(ctx, `UPDATE people SET status = $1 WHERE name = $2`, string(status), name); err != nil {
		return err
	}
	// A person who is suspended here is not resumed by a directory.
	if _, err := tx.Exec(ctx, `UPDATE directory_people SET suspended = 0 WHERE person = $1`, name); err != nil {
		return err
	}
	return tx.sshChanged(ctx) // the KRL holds the certificates of suspended people
}

// strip takes everything from a person that grants access.
func (tx *Tx) strip(ctx context.Context, name string) error {
	if _, err := tx.revokeCertificates(ctx, "person", name, postern.CessationOfOperation, tx.db.Now()); err != nil {
		return err
	}
	if _, err := tx.revokeSSH(ctx, "person", name, tx.db.Now()); err != nil {
		return err
	}
	for _, q := range []string{
		`UPDATE people SET email = '' WHERE name = $1`,
		`DELETE FROM person_groups WHERE person = $1`,
		`DELETE FROM directory_groups WHERE person = $1`,
		`UPDATE credentials SET status = 'revoked' WHERE person = $1`,
	} {
		if _, err := tx.Exec(ctx, q, name); err != nil {
			return err
		}
	}
	return tx.dropLinks(ctx, name, "")
}

// Person returns the person of that name, whatever their status, or
// [postern.NotFound].
func (tx *Tx) Person(ctx context.Context, name string) (postern.Person, error) {
	return tx.person(ctx, `p.name = $1`, name)
}

// PersonByEmail returns the person with that address, whatever their status, or
// [postern.NotFound].
func (tx *Tx) PersonByEmail(ctx context.Context, email string) (postern.Person, error) {
	clean, err := postern.CleanEmail(email)
	if err != nil {
		return postern.Person{}, postern.Errorf(postern.NotFound, "no person has the address %q", email)
	}
	return tx.person(ctx, `p.email = $1`, clean)
}

func (tx *Tx) person(ctx context.Context, where, arg string) (postern.Person, error) {
	people, err := tx.people(ctx, `WHERE `+where, arg)
	if err != nil {
		return postern.Person{}, err
	}
	if len(people) == 0 {
		return postern.Person{}, postern.Errorf(postern.NotFound, "there is no person %q", arg)
	}
	return people[0], nil
}

// People returns all people but those who were removed, by name.
func (tx *Tx) People(ctx context.Context) ([]postern.Person, error) {
	return tx.people(ctx, `WHERE p.status <> 'removed'`)
}

func (tx *Tx) people(ctx context.Context, where string, args ...any) ([]postern.Person, error) {
	rows, err := tx.Query(ctx, `SELECT p.name, p.email, p.full_name, p.status, p.created, COALESCE(g.name, '') AS g,
		0 AS dir
		FROM people p LEFT JOIN person_groups g ON g.person = p.name `+where+`
		UNION ALL SELECT p.name, p.email, p.full_name, p.status, p.created, d.name, 1
		FROM people p JOIN directory_groups d ON d.person = p.name `+where+`
		ORDER BY 1, 7, 6`, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var people []postern.Person
	for rows.Next() {
		var p postern.Person
		var created int64
		var group string
		var directory bool
		if err := rows.Scan(&p.Name, &p.Email, &p.FullName, &p.Status, &created, &group, &directory); err != nil {
			return nil, err
		}
		if n := len(people); n == 0 || people[n-1].Name != p.Name {
			p.Created = fromMicros(created)
			people = append(people, p)
		}
		join(&people[len(people)-1], group, directory)
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	// Databases order text by different rules; Postern by bytes.
	slices.SortFunc(people, func(a, b postern.Person) int { return strings.Compare(a.Name, b.Name) })
	for _, p := range people {
		slices.Sort(p.Groups)
		slices.Sort(p.DirectoryGroups)
	}
	return people, nil
}

// join puts a person into a group, that a directory gives or not. Own groups come first.
func join(p *postern.Person, group string, directory bool) {
	if group == "" || slices.Contains(p.Groups, group) {
		return
	}
	p.Groups = append(p.Groups, group)
	if directory {
		p.DirectoryGroups = append(p.DirectoryGroups, group)
	}
}
