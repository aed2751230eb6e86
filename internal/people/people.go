package people

import (
	"context"
	"errors"
	"slices"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/portal"
	"github.com/postern-project/postern/internal/store"
)

// Directory changes people on behalf of the command line. Each change and its entry on
// the timeline are one transaction.
type Directory struct {
	DB        *store.DB
	Authority *ca.Authority
}

// Holder is a person with the credentials that they have or had.
type Holder struct {
	postern.Person
	Credentials []postern.Credential `json:"credentials"`
}

// Holder returns a person and their credentials, as they are at one time.
func (d Directory) Holder(ctx context.Context, name string) (Holder, error) {
	h := Holder{Credentials: []postern.Credential{}}
	err := d.DB.Read(ctx, func(ctx context.Context, tx *store.Tx) (err error) {
		if h.Person, err = tx.Person(ctx, name); err != nil {
			return err
		}
		list, err := tx.CredentialsOf(ctx, name)
		h.Credentials = append(h.Credentials[:0], list...)
		return err
	})
	return h, err
}

// Add adds a person. Invalid if no certificate could be issued with the address.
func (d Directory) Add(ctx context.Context, p postern.Person) error {
	if err := d.permitsMail(p.Email); err != nil {
		return err
	}
	return d.DB.Write(ctx, func(ctx context.Context, tx *store.Tx) error {
		if err := tx.AddPerson(ctx, p); err != nil {
			return err
		}
		return tx.Append(ctx, ByHand(postern.Event{Kind: postern.EventPersonAdded, Person: p.Name}))
	})
}

// Invite makes a link by which a person gets a certificate. What they have stays
// valid. NotFound (ErrNoPortal) if no portal ever ran.
func (d Directory) Invite(ctx context.Context, name string) (portal.Made, error) {
	links, who, err := d.linksFor(ctx, name)
	if err != nil {
		return portal.Made{}, err
	}
	return links.Invite(ctx, postern.Actor{}, who)
}

// Recover disables and revokes what a person has, and makes a link by which they
// get a new certificate. With keepOTP one-time password authenticators stay.
func (d Directory) Recover(ctx context.Context, name string, keepOTP bool) (portal.Made, portal.Off, error) {
	links, who, err := d.linksFor(ctx, name)
	if err != nil {
		return portal.Made{}, portal.Off{}, err
	}
	return links.RecoverNow(ctx, postern.Actor{}, who, ByHand(postern.Event{
		Kind: postern.EventPersonRecovered, Outcome: postern.OK, Person: name, Reason: "the command line",
	}), keepOTP)
}

// linksFor returns an active person and the Links to invite or recover them.
func (d Directory) linksFor(ctx context.Context, name string) (*portal.Links, postern.Person, error) {
	who, err := d.DB.People().Person(ctx, name)
	if err != nil {
		return nil, who, err
	}
	if !who.Active() {
		return nil, who, postern.Errorf(postern.Denied, "%s is %s", who.Name,
			who.Status).WithHint("resume the person first")
	}
	links, err := Links(ctx, d.DB, d.Authority)
	return links, who, err
}

// statusEvents are the kinds of event by the new status of a person.
var statusEvents = map[postern.PersonStatus]string{
	postern.PersonActive:    postern.EventPersonResumed,
	postern.PersonSuspended: postern.EventPersonSuspended,
	postern.PersonRemoved:   postern.EventPersonRemoved,
}

// SetStatus suspends, resumes or removes a person. It reports whether they had
// another status before.
func (d Directory) SetStatus(ctx context.Context, name string, status postern.PersonStatus) (changed bool, err error) {
	err = d.DB.Write(ctx, func(ctx context.Context, tx *store.Tx) error {
		p, err := tx.Person(ctx, name)
		if err != nil {
			return err
		}
		if changed = p.Status != status; !changed {
			return nil
		}
		if err := tx.SetPersonStatus(ctx, name, status); err != nil {
			return err
		}
		return tx.Append(ctx, ByHand(postern.Event{Kind: statusEvents[status], Person: name}))
	})
	return changed, err
}

// Change is what is to be changed of a person.
type Change struct {
	Email, FullName *string // nil: as they are
	Add, Drop       []string
}

// Empty reports whether nothing is to be changed.
func (c Change) Empty() bool {
	return c.Email == nil && c.FullName == nil && len(c.Add)+len(c.Drop) == 0
}

func (c Change) apply(p *postern.Person) {
	if c.Email != nil {
		p.Email = *c.Email
	}
	if c.FullName != nil {
		p.FullName = *c.FullName
	}
	p.Groups = append(p.Groups, c.Add...)
	p.Groups = slices.DeleteFunc(p.Groups, func(g string) bool { return slices.Contains(c.Drop, g) })
}

// Change changes a person, and notifies their old address by mail if that changes.
// It returns what has changed in words, "" if nothing has. Denied
// (portal.ErrLastAdministrator) if no administrator would be left.
func (d Directory) Change(ctx context.Context, name string, c Change) (what string, err error) {
	if c.Email != nil {
		if err := d.permitsMail(*c.Email); err != nil {
			return "", err
		}
	}
	mail := func(postern.Person, string) *portal.Message { return nil }
	switch links, err := Links(ctx, d.DB, d.Authority); {
	case err == nil:
		mail = links.Changed("an administrator")
	case !errors.Is(err, ErrNoPortal):
		return "", err
	}
	event := ByHand(postern.Event{Kind: postern.EventPersonChanged, Person: name})
	pages := Pages{Portal: d.DB.Portal()}
	if pages.Admins, err = administrators(ctx, pages.Portal); err != nil {
		return "", err
	}
	return pages.ChangePerson(ctx, postern.Actor{}, name, c.apply, event, mail)
}

// permitsMail fails for an address with which no certificate can be issued here.
// A string that is not an address is left to the store, which refuses it.
func (d Directory) permitsMail(email string) error {
	email, err := postern.CleanEmail(email)
	if err != nil {
		return nil
	}
	return d.Authority.PermitsMail(email)
}
