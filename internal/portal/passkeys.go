package portal

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/postern-project/postern"
)

// Passkeys registers people's passkeys. What a method returns as options is JSON for
// the browser's WebAuthn API; the state is given back with the browser's response.
// Errors with a code other than Internal may be shown to the person. It is safe for
// concurrent use.
type Passkeys interface {
	BeginAdd(ctx context.Context, who postern.Person) (options []byte, state string, err error)
	FinishAdd(ctx context.Context, by postern.Actor, label, state string, response []byte) error
	// BeginSignIn begins a sign-in by any person's passkey, bound to what the caller wants
	// it for; FinishSignIn returns the passkey that was used, and where one is known and
	// refused, that with the error.
	BeginSignIn(ctx context.Context, bound string) (options []byte, state string, err error)
	FinishSignIn(ctx context.Context, bound, state string, response []byte) (postern.Credential, error)
	// Rename changes the label of one of the actor's passkeys; NotFound if they have no such one.
	Rename(ctx context.Context, by postern.Actor, id, label string) error
}

// errNoPasskeys answers where the portal has none.
var errNoPasskeys = postern.Errorf(postern.NotFound, "There are no passkeys here.")

// passkeys lists the person's passkeys, with forms to add, name and remove them.
func (p *Portal) passkeys(r *request) error {
	if p.Passkeys == nil {
		return errNoPasskeys
	}
	all, err := p.ownPasskeys(r)
	if err != nil {
		return err
	}
	p.render(r, 200, "passkeys", page{Title: "Passkeys", Nav: "keys", Data: all})
	return nil
}

// ownPasskeys returns the person's passkeys that were not removed.
func (p *Portal) ownPasskeys(r *request) ([]postern.Credential, error) {
	all, err := p.People.CredentialsOf(r.Context(), r.who.Name)
	return slices.DeleteFunc(all, func(c postern.Credential) bool {
		return c.Kind != postern.Passkey || c.Status == postern.CredentialRevoked
	}), err
}

// ownPasskey returns the one that a form names.
func (p *Portal) ownPasskey(r *request) (postern.Credential, error) {
	all, err := p.ownPasskeys(r)
	if err != nil {
		return postern.Credential{}, err
	}
	i := slices.IndexFunc(all, func(c postern.Credential) bool { return c.ID == r.PostForm.Get("id") })
	if i < 0 {
		return postern.Credential{}, postern.Errorf(postern.NotFound, "You have no such passkey.")
	}
	return all[i], nil
}

// ceremony is what the page's script gets to ask the browser with.
type ceremony struct {
	Options json.RawMessage `json:"options"`
	State   string          `json:"state"`
}

// beginPasskey answers the page's script with what the browser needs to make a passkey.
func (p *Portal) beginPasskey(r *request) error {
	if p.Passkeys == nil {
		return errNoPasskeys
	}
	if err := p.limit(r.Context(), "keys/"+r.who.Name, keysPerHour, time.Hour); err != nil {
		return err
	}
	options, state, err := p.Passkeys.BeginAdd(r.Context(), r.who)
	if err != nil {
		return err
	}
	writeJSON(r.w, 200, ceremony{options, state})
	return nil
}

// addPasskey adds the passkey that the browser made.
func (p *Portal) addPasskey(r *request) error {
	if p.Passkeys == nil {
		return errNoPasskeys
	}
	label, err := labelIn(r)
	if err != nil {
		return err
	}
	if err := p.Passkeys.FinishAdd(r.Context(), p.actor(r), orDefault(label, "Passkey"), r.PostForm.Get("state"),
		[]byte(r.PostForm.Get("response"))); err != nil {
		return err
	}
	writeJSON(r.w, 200, map[string]string{"to": "/passkeys?done=passkey-added"})
	return nil
}

// changePasskey names, disables, enables or removes one of the person's passkeys.
func (p *Portal) changePasskey(r *request) error {
	if p.Passkeys == nil {
		return errNoPasskeys
	}
	c, err := p.ownPasskey(r)
	if err != nil {
		return err
	}
	do := r.PostForm.Get("do")
	status, ok := map[string]postern.CredentialStatus{
		"disable": postern.CredentialDisabled, "enable": postern.CredentialActive, "remove": postern.CredentialRevoked,
	}[do]
	switch {
	case do == "rename":
		err = p.renamePasskey(r, c)
	case ok:
		err = p.People.SetCredentialStatus(r.Context(), p.actor(r), c.Kind, c.ID, status, postern.Event{
			Kind: postern.EventPasskeyChanged, Outcome: postern.OK, Person: c.Person, Address: p.peer(r), Object: c.ID,
			Links: []postern.Link{c.Link()}, Details: map[string]string{"status": string(status)},
		})
	default:
		err = postern.Errorf(postern.NotFound, "There is no such page here.")
	}
	if err != nil {
		return err
	}
	p.redirect(r, "/passkeys?done=passkey-"+do)
	return nil
}

func (p *Portal) renamePasskey(r *request, c postern.Credential) error {
	label, err := labelIn(r)
	if err != nil {
		return err
	}
	return p.Passkeys.Rename(r.Context(), p.actor(r), c.ID, orDefault(label, "Passkey"))
}
