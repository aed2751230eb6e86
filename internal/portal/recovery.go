package portal

import (
	"context"
	"fmt"
	"strings"

	"github.com/postern-project/postern"
)

// Recovery is the use of a way back in. It takes from a person everything that
// somebody who had their things could hold, or could have made with them:
// certificates are revoked, keys switched off, and links, orders and codes that
// were not used yet are void. Their keys the person can switch on again.
type Recovery struct {
	Event   postern.Event // whose, from where and, as its Reason, which way; the store adds what was switched off
	KeepOTP bool          // leave YubiKeys and authenticator apps on
	Code    *[32]byte     // hash of the recovery code that it spends; nil: none
	Next    *Fresh        // link by which the person goes on; nil: none
	// Mail returns what to tell the person, or nil. It may be called again.
	Mail func(Off) *Message
}

// Off is what a recovery has switched off.
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
}

// Words lists it for people, one line each.
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

// Summary says it in one line, without names.
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
		return "nothing was left to switch off"
	}
	return "switched off: " + strings.Join(counts, ", ")
}

// rest counts what has no name.
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

// Recover makes a link by which the person enrols again; what they had is
// switched off when it is used.
func (l *Links) Recover(ctx context.Context, by postern.Actor, who postern.Person) (Made, error) {
	return l.put(ctx, by, Link{Purpose: Recover, Person: who.Name, Email: who.Email}, who, l.ShortLinkLife, recoverMessage)
}

// RecoverNow switches off at once what the person had, and makes a link by which
// they enrol again. The event says who does it, and which way.
func (l *Links) RecoverNow(ctx context.Context, by postern.Actor, who postern.Person, e postern.Event, keepOTP bool) (Made, Off, error) {
	made, next, err := l.fresh(Link{Purpose: Enrol, Person: who.Name, Email: who.Email}, who, l.ShortLinkLife, againMessage)
	if err != nil {
		return made, Off{}, err
	}
	off, err := l.Store.Recover(ctx, by, Recovery{Event: e, KeepOTP: keepOTP, Next: &next, Mail: l.recovered(who, e.Reason)})
	return made, off, err
}

// withCode spends a recovery code: as RecoverNow, but the link is not sent, and
// nothing but the code decides whether it is made.
func (l *Links) withCode(ctx context.Context, by postern.Actor, who postern.Person, e postern.Event, code [32]byte, keepOTP bool) (Made, Off, error) {
	made, next, err := l.fresh(Link{Purpose: Enrol, Person: who.Name}, postern.Person{}, l.ShortLinkLife, nil)
	if err != nil {
		return made, Off{}, err
	}
	off, err := l.Store.Recover(ctx, by, Recovery{Event: e, KeepOTP: keepOTP, Code: &code, Next: &next, Mail: l.recovered(who, e.Reason)})
	return made, off, err
}

// recovered tells the person of a recovery.
func (l *Links) recovered(who postern.Person, how string) func(Off) *Message {
	return func(off Off) *Message {
		return l.tell(who, recoveredMessage(l.Config, who, how, off, l.now()))
	}
}

// tell returns a message as it is queued, or nil where nothing can be sent.
func (l *Links) tell(who postern.Person, m Message) *Message {
	if !l.Mails || who.Email == "" {
		return nil
	}
	m.Queued = l.now().UTC()
	return &m
}
