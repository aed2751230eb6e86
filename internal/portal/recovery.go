package portal

import (
	"context"
	"fmt"
	"strings"

	"github.com/postern-project/postern"
)

// Recovery is the recovery of a person's access. It invalidates every credential
// that an attacker may have stolen, or may have made with a stolen one:
// certificates are revoked, keys disabled, and unused links, orders and codes become
// void. The person can enable their keys again.
type Recovery struct {
	Event   postern.Event // with the person, the address and, as its Reason, how; the store adds a summary of Off
	KeepOTP bool          // leave YubiKeys and authenticator apps enabled
	Code    *[32]byte     // hash of the recovery code that it uses up; nil: none
	Next    *Fresh        // link by which the person enrols again; nil: none
	// Mail returns the message to the person, or nil. It may be called again.
	Mail func(Off) *Message
}

// Off is what a recovery revoked, disabled and made void.
type Off struct {
	Certificates []postern.Credential // X.509 and SSH, revoked for good
	Keys         []postern.Credential // YubiKeys, authenticator apps, SSH keys: disabled
	ACME         []string             // keys of ACME accounts, by label or ID; disabled with their accounts
	Links        int                  // one-time links
	Orders       int                  // open orders for server certificates
	Codes        int                  // recovery codes
}

var credentialWords = map[postern.CredentialKind]string{
	postern.X509Certificate: "certificate of the device",
	postern.SSHCertificate:  "SSH certificate",
	postern.SSHKey:          "SSH key",
	postern.YubiKey:         "YubiKey",
	postern.TOTP:            "authenticator app",
	postern.HOTP:            "code generator",
	postern.Passkey:         "passkey",
}

// Words lists it for people, one line for each thing.
func (o Off) Words() []string {
	var all []string
	for _, c := range append(o.Certificates[:len(o.Certificates):len(o.Certificates)], o.Keys...) {
		all = append(all, credentialWords[c.Kind]+" "+called(c.Label, c.ID))
	}
	for _, name := range o.ACME {
		all = append(all, "ACME key "+name+", with its account")
	}
	return append(all, o.rest()...)
}

// called names something by its label, its ID, or both.
func called(label, id string) string {
	if id = shortSerial(id); label == "" || id == "" {
		return label + id
	}
	return label + " (" + id + ")"
}

// Summary returns the numbers of things in one line.
func (o Off) Summary() string {
	counts := []string{}
	for _, n := range []struct {
		n    int
		what string
	}{{len(o.Certificates), "certificate"}, {len(o.Keys), "key"}, {len(o.ACME), "ACME key"}} {
		if n.n > 0 {
			counts = append(counts, number(n.n, n.what))
		}
	}
	counts = append(counts, o.rest()...)
	if len(counts) == 0 {
		return "nothing was left to disable"
	}
	return "disabled: " + strings.Join(counts, ", ")
}

// rest returns the numbers of things without names.
func (o Off) rest() []string {
	var all []string
	if o.Links > 0 {
		all = append(all, number(o.Links, "unused link"))
	}
	if o.Orders > 0 {
		all = append(all, number(o.Orders, "open order"))
	}
	if o.Codes > 0 {
		all = append(all, number(o.Codes, "recovery code"))
	}
	return all
}

func number(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// Recover makes a link by which the person enrols again. What they had is revoked
// and disabled when the link is used.
func (l *Links) Recover(ctx context.Context, by postern.Actor, who postern.Person) (Made, error) {
	return l.put(ctx, by, Link{Purpose: Recover, Person: who.Name, Email: who.Email}, who, l.ShortLinkLife,
		recoverMessage)
}

// RecoverNow revokes and disables at once what the person had, and makes a link by
// which they enrol again. The event says who does it, and how.
func (l *Links) RecoverNow(ctx context.Context, by postern.Actor, who postern.Person, e postern.Event,
	keepOTP bool,
) (Made, Off, error) {
	made, next, err := l.fresh(Link{Purpose: Enrol, Person: who.Name, Email: who.Email}, who, l.ShortLinkLife,
		againMessage)
	if err != nil {
		return made, Off{}, err
	}
	off, err := l.Store.Recover(ctx, by, Recovery{
		Event: e, KeepOTP: keepOTP, Next: &next,
		Mail: l.recovered(who, e.Reason),
	})
	return made, off, err
}

// withCode uses up a recovery code. It is as RecoverNow, but the link is not sent,
// and a valid code is all that it needs.
func (l *Links) withCode(ctx context.Context, by postern.Actor, who postern.Person, e postern.Event, code [32]byte,
	keepOTP bool,
) (Made, Off, error) {
	made, next, err := l.fresh(Link{Purpose: Enrol, Person: who.Name}, postern.Person{}, l.ShortLinkLife, nil)
	if err != nil {
		return made, Off{}, err
	}
	off, err := l.Store.Recover(ctx, by, Recovery{
		Event: e, KeepOTP: keepOTP, Code: &code, Next: &next,
		Mail: l.recovered(who, e.Reason),
	})
	return made, off, err
}

// recovered returns a function that makes the message about a recovery.
func (l *Links) recovered(who postern.Person, how string) func(Off) *Message {
	return func(off Off) *Message {
		return l.mailTo(who, recoveredMessage(l.Config, who, how, off, l.now()))
	}
}

// mailTo returns the message, ready to be queued, or nil if the person has no address
// or mail is not configured.
func (l *Links) mailTo(who postern.Person, m Message) *Message {
	if !l.Mails || who.Email == "" {
		return nil
	}
	m.Queued = l.now().UTC()
	return &m
}
