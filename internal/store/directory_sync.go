package store

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/directory"
)

// Sync implements [directory.Store].
func (s Directory) Sync(
	ctx context.Context, name string, snapshot *directory.Snapshot,
) (changes directory.Changes, err error) {
	err = s.Write(ctx, func(ctx context.Context, tx *Tx) error {
		changes, err = tx.syncDirectory(ctx, name, snapshot)
		return err
	})
	return changes, err
}

// link is a person and their entry in a directory.
type link struct {
	person    string
	id        string
	suspended bool // by the directory
}

// directorySync makes people like a directory, in one transaction.
type directorySync struct {
	tx       *Tx
	name     string
	people   map[string]postern.Person // all that are or were, by name
	emails   map[string]string         // names by address
	accounts []postern.Account
	linked   map[string]link // by the ID of the entry
	owner    map[string]link // the same, by the name of the person
	groups   map[string][]string
	changes  directory.Changes
}

func (tx *Tx) syncDirectory(
	ctx context.Context, name string, snapshot *directory.Snapshot,
) (changes directory.Changes, err error) {
	var failed string
	if err := tx.QueryRow(ctx, `SELECT failed FROM directories WHERE name = $1`, name).Scan(&failed); err != nil {
		return changes, notFound(err, "people are not taken from a directory %q", name)
	}
	d, err := tx.beginSync(ctx, name)
	if err != nil {
		return changes, err
	}
	d.changes.Skipped = slices.Clone(snapshot.Skipped)
	there := map[string]bool{}
	for _, p := range snapshot.People {
		there[p.ID] = true
		if err := d.sync(ctx, p); err != nil {
			return d.changes, err
		}
	}
	for _, id := range slices.Sorted(maps.Keys(d.linked)) {
		if l := d.linked[id]; !there[id] {
			if err := d.suspend(ctx, l, "not in the directory "+name+" any more"); err != nil {
				return d.changes, err
			}
		}
	}
	if failed != "" {
		if err := tx.Append(ctx, postern.Event{Kind: postern.EventDirectory, Object: name}); err != nil {
			return d.changes, err
		}
	}
	_, err = tx.Exec(ctx, `UPDATE directories SET synced = $2, failed = '', expired = 0 WHERE name = $1`,
		name, micros(tx.db.Now()))
	return d.changes, err
}

func (tx *Tx) beginSync(ctx context.Context, name string) (*directorySync, error) {
	d := &directorySync{
		tx: tx, name: name, people: map[string]postern.Person{}, emails: map[string]string{},
		linked: map[string]link{}, owner: map[string]link{}, groups: map[string][]string{},
	}
	all, err := tx.people(ctx, ``)
	if err != nil {
		return nil, err
	}
	for _, p := range all {
		d.keep(p)
	}
	if d.accounts, err = tx.accounts(ctx); err != nil {
		return nil, err
	}
	rows, err := tx.Query(ctx, `SELECT d.person, d.id, d.suspended, COALESCE(g.name, '')
		FROM directory_people d LEFT JOIN directory_groups g ON g.person = d.person WHERE d.directory = $1`, name)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var l link
		var suspended int64
		var group string
		if err := rows.Scan(&l.person, &l.id, &suspended, &group); err != nil {
			return nil, err
		}
		l.suspended = suspended != 0
		d.linked[l.id], d.owner[l.person] = l, l
		if group != "" {
			d.groups[l.person] = append(d.groups[l.person], group)
		}
	}
	return d, rows.Err()
}

// keep remembers how a person is now.
func (d *directorySync) keep(p postern.Person) {
	delete(d.emails, d.people[p.Name].Email)
	d.people[p.Name] = p
	if p.Email != "" {
		d.emails[p.Email] = p.Name
	}
}

// maxSkipped is how many entries that are not taken are said.
const maxSkipped = 100

// skip notes once why a person, or what an entry says of them, is not taken.
func (d *directorySync) skip(p directory.Person, format string, args ...any) error {
	if len(d.changes.Skipped) >= maxSkipped {
		return nil
	}
	if why := p.Name + ": " + fmt.Sprintf(format, args...); !slices.Contains(d.changes.Skipped, why) {
		d.changes.Skipped = append(d.changes.Skipped, why)
	}
	return nil
}

// sync makes one person like their entry.
func (d *directorySync) sync(ctx context.Context, p directory.Person) error {
	l, known := d.linked[p.ID]
	if !known {
		name, err := postern.AccountPerson(d.accounts, p.Name, "")
		if err != nil {
			return d.skip(p, "%v", err)
		}
		if l = (link{person: strings.ToLower(name), id: p.ID}); !postern.ValidName(l.person) {
			return d.skip(p, "it cannot be a person's name; an account of that name may say whose it is")
		}
		if other, taken := d.owner[l.person]; taken {
			return d.skip(p, "%s was the name of another entry, %s", l.person, other.id)
		}
	}
	old, exists := d.people[l.person]
	switch {
	case exists && old.Status == postern.PersonRemoved:
		return d.skip(p, "%s was removed here", l.person)
	case !exists && p.Disabled:
		return nil
	case !exists:
		if err := d.add(ctx, l, p); err != nil {
			return err
		}
	case !known && (old.Email == "" || old.Email != p.Email):
		return d.skip(p, "there is a person %s already, with another e-mail address", l.person)
	case !known:
		if err := d.link(ctx, l, "taken from the directory "+d.name+" from now on"); err != nil {
			return err
		}
	}
	if err := d.change(ctx, d.people[l.person], p); err != nil {
		return err
	}
	if p.Disabled {
		return d.suspend(ctx, l, "disabled in the directory "+d.name)
	}
	return d.resume(ctx, d.linked[p.ID])
}

// add adds a person for a new entry.
func (d *directorySync) add(ctx context.Context, l link, p directory.Person) error {
	person := postern.Person{
		Name: l.person, FullName: p.FullName, Email: d.free(p, l.person),
		Status: postern.PersonActive,
	}
	if err := d.tx.AddPerson(ctx, person); err != nil {
		return err
	}
	d.keep(person)
	d.changes.Added = append(d.changes.Added, l.person)
	e := postern.Event{Kind: postern.EventPersonAdded, Person: l.person, Reason: "in the directory " + d.name}
	if err := d.tx.Append(ctx, e); err != nil {
		return err
	}
	return d.link(ctx, l, "")
}

// link notes that a person is one of the directory's; why is an entry of the timeline.
func (d *directorySync) link(ctx context.Context, l link, why string) error {
	_, err := d.tx.Exec(ctx, `INSERT INTO directory_people (person, directory, id, suspended) VALUES ($1, $2, $3, 0)`,
		l.person, d.name, l.id)
	if err != nil {
		return err
	}
	d.linked[l.id], d.owner[l.person] = l, l
	if why == "" {
		return nil
	}
	d.changes.Changed = append(d.changes.Changed, l.person)
	return d.tx.Append(ctx, postern.Event{Kind: postern.EventPersonChanged, Person: l.person, Reason: why})
}

// free returns the address of a person's entry, or the one that they have if another
// person has that.
func (d *directorySync) free(p directory.Person, name string) string {
	if other := d.emails[p.Email]; other != "" && other != name {
		_ = d.skip(p, "the address %s is that of %s already", p.Email, other)
		return d.people[name].Email
	}
	return p.Email
}

// change gives a person the address, full name and groups of their entry.
func (d *directorySync) change(ctx context.Context, old postern.Person, p directory.Person) error {
	next := old
	next.Email, next.FullName = d.free(p, old.Name), p.FullName
	var what []string
	if next.Email != old.Email {
		what = append(what, fmt.Sprintf("address %s changed to %s", old.Email, next.Email))
		if err := d.tx.dropLinks(ctx, old.Name, old.Email); err != nil {
			return err
		}
	}
	if next.FullName != old.FullName {
		what = append(what, "full name changed")
	}
	if len(what) > 0 {
		if _, err := d.tx.Exec(ctx, `UPDATE people SET email = $1, full_name = $2 WHERE name = $3`,
			next.Email, next.FullName, old.Name); err != nil {
			return err
		}
		d.keep(next)
	}
	groups, err := d.regroup(ctx, old.Name, p.Groups)
	if err != nil {
		return err
	}
	if what = append(what, groups...); len(what) == 0 {
		return nil
	}
	if !slices.Contains(d.changes.Added, old.Name) {
		d.changes.Changed = append(d.changes.Changed, old.Name)
	}
	if err := d.tx.Append(ctx, postern.Event{
		Kind: postern.EventPersonChanged, Person: old.Name, Reason: strings.Join(what, "; "),
	}); err != nil {
		return err
	}
	return d.tx.Touch(ctx)
}

// regroup makes the groups that a person has from the directory those given, and says
// what has changed.
func (d *directorySync) regroup(ctx context.Context, person string, groups []string) (what []string, err error) {
	old := d.groups[person]
	for _, g := range groups {
		if !slices.Contains(old, g) {
			what = append(what, "joined the group "+g)
			if _, err := d.tx.Exec(ctx, `INSERT INTO directory_groups (person, name)
				VALUES ($1, $2)`, person, g); err != nil {
				return nil, err
			}
		}
	}
	for _, g := range old {
		if !slices.Contains(groups, g) {
			what = append(what, "left the group "+g)
			if _, err := d.tx.Exec(ctx, `DELETE FROM directory_groups
				WHERE person = $1 AND name = $2`, person, g); err != nil {
				return nil, err
			}
		}
	}
	return what, nil
}

// suspend suspends a person unless they are suspended, or removed, already.
func (d *directorySync) suspend(ctx context.Context, l link, why string) error {
	if d.people[l.person].Status != postern.PersonActive {
		return nil
	}
	if err := d.tx.SetPersonStatus(ctx, l.person, postern.PersonSuspended); err != nil {
		return err
	}
	d.changes.Suspended = append(d.changes.Suspended, l.person)
	return d.mark(ctx, l, true, postern.Event{Kind: postern.EventPersonSuspended, Person: l.person, Reason: why})
}

// resume resumes a person whom the directory has suspended.
func (d *directorySync) resume(ctx context.Context, l link) error {
	if !l.suspended {
		return nil
	}
	if d.people[l.person].Status == postern.PersonActive { // an administrator was quicker
		return d.mark(ctx, l, false, postern.Event{})
	}
	if err := d.tx.SetPersonStatus(ctx, l.person, postern.PersonActive); err != nil {
		return err
	}
	d.changes.Resumed = append(d.changes.Resumed, l.person)
	return d.mark(ctx, l, false, postern.Event{
		Kind: postern.EventPersonResumed, Person: l.person, Reason: "active in the directory " + d.name,
	})
}

func (d *directorySync) mark(ctx context.Context, l link, suspended bool, e postern.Event) error {
	if _, err := d.tx.Exec(ctx, `UPDATE directory_people SET suspended = $2 WHERE person = $1`,
		l.person, flag(suspended)); err != nil || e.Kind == "" {
		return err
	}
	return d.tx.Append(ctx, e)
}
