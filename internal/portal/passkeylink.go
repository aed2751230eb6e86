package portal

import (
	"context"
	"time"

	"github.com/postern-project/postern"
)

// passkeyLinkLife is how long the link that a passkey grants is valid: it is opened at
// once, in the same browser.
const passkeyLinkLife = 10 * time.Minute

// forLink is what a sign-in by a passkey is bound to here.
const forLink = "link"

// byPasskey makes a link for a person who has just used a passkey, the actor's credential.
func (l *Links) byPasskey(ctx context.Context, by postern.Actor, who postern.Person) (Made, error) {
	made, f, err := l.fresh(Link{Purpose: Enrol, Person: who.Name}, who, passkeyLinkLife, nil)
	if err != nil {
		return made, err
	}
	f.Event.Links = []postern.Link{by.Credential}
	return made, l.Store.PutLink(ctx, by, f)
}

// passkeyPage offers a certificate to who has a passkey.
func (p *Portal) passkeyPage(r *request) error {
	if p.Passkeys == nil {
		return errNoPasskeys
	}
	p.render(r, 200, "passkey", page{Title: "Use your passkey", Nav: "home"})
	return nil
}

// beginPasskeyLink answers the page's script with what the browser needs to use a passkey.
func (p *Portal) beginPasskeyLink(r *request) error {
	if p.Passkeys == nil {
		return errNoPasskeys
	}
	options, state, err := p.Passkeys.BeginSignIn(r.Context(), forLink)
	if err != nil {
		return err
	}
	writeJSON(r.w, 200, ceremony{options, state})
	return nil
}

// passkeyLink answers with a one-time link for the person whose passkey was used.
func (p *Portal) passkeyLink(r *request) error {
	ctx := r.Context()
	if p.Passkeys == nil {
		return errNoPasskeys
	}
	if err := p.limit(ctx, "passkey/"+p.from(r), askedPerHour, time.Hour); err != nil {
		return err
	}
	c, err := p.Passkeys.FinishSignIn(ctx, forLink, r.PostForm.Get("state"), []byte(r.PostForm.Get("response")))
	if err != nil {
		p.notePasskey(r, c, err)
		return err
	}
	who, err := p.People.Person(ctx, c.Person)
	if err != nil {
		return err
	}
	made, err := p.Links.byPasskey(ctx, postern.Actor{Person: c.Person, Credential: c.Link(), Address: p.peer(r)}, who)
	if err != nil {
		return err
	}
	writeJSON(r.w, 200, map[string]string{"to": made.URL})
	return nil
}

// notePasskey records that a passkey that is known was refused.
func (p *Portal) notePasskey(r *request, c postern.Credential, err error) {
	if c.Person == "" || internalError(err) {
		return
	}
	p.logError(p.Timeline.Append(r.Context(), postern.Event{
		Kind: postern.EventPortalLink, Outcome: postern.Refused, Person: c.Person, Address: p.peer(r),
		Links: []postern.Link{c.Link()}, Reason: err.Error(), Details: map[string]string{"purpose": string(Enrol)},
	}))
}
