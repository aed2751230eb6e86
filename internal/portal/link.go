package portal

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"slices"
	"strings"
	"time"

	"github.com/postern-project/postern"
)

// Purpose says what a link grants.
type Purpose string

// The purposes.
const (
	Enrol   Purpose = "enrol"   // a first or further certificate for a person who exists
	SignUp  Purpose = "signup"  // a new person for a mail address, and a certificate
	Recover Purpose = "recover" // as Enrol, after a [Recovery]
	Prove   Purpose = "prove"   // the right to approve a name of a domain
)

// Link is a one-time link as it is stored: with the hash of its token, never the
// token.
type Link struct {
	Hash    [32]byte
	Purpose Purpose
	Person  string // whom it is for; "" for SignUp
	Email   string // where it was sent; "" if it was shown on a screen
	Detail  string // Prove: the name
	Created time.Time
	Expires time.Time
	Used    time.Time // zero: not yet
	Serial  string    // of the certificate that it granted; "": none
}

// Fresh is a new link, to be stored.
type Fresh struct {
	Link
	Message *Message // with the token, to be queued; nil: none
	Event   postern.Event
}

// Links makes and finds one-time links. It is safe for concurrent use.
type Links struct {
	Config
	Store LinkStore
	Mails bool // whether links with an address are sent
	// Permits returns an error that may be shown if no certificate with that mail
	// address can be issued.
	Permits func(email string) error
	now     func() time.Time
}

// LinkStore stores links. Each method that writes is one transaction.
//
// PutLink stores the link, queues its message and appends its event. Recover does
// all of a Recovery: it fails with ErrCode if the code is not one of the person's,
// and with Denied for a person who is not active. AnswerLink uses up a Prove link,
// stores the proof if there is one and appends the event. It fails with ErrLink if
// the link has expired or was used: of any number of calls, on any number of
// servers, at most one succeeds.
type LinkStore interface {
	PutLink(ctx context.Context, by postern.Actor, f Fresh) error
	Link(ctx context.Context, hash [32]byte) (Link, error) // NotFound
	Recover(ctx context.Context, by postern.Actor, r Recovery) (Off, error)
	AnswerLink(ctx context.Context, by postern.Actor, hash [32]byte, now time.Time, p *Proof, e postern.Event) error
}

// NewLinks returns Links without a portal, as a command line uses them.
func NewLinks(c Config, s LinkStore, mails bool, permits func(email string) error) (*Links, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	return &Links{Config: c, Store: s, Mails: mails, Permits: permits, now: time.Now}, nil
}

var tokenCoding = base32.StdEncoding.WithPadding(base32.NoPadding)

// newToken returns 160 random bits in lower-case base32, 32 characters.
func newToken() string {
	var b [20]byte
	rand.Read(b[:])
	return strings.ToLower(tokenCoding.EncodeToString(b[:]))
}

// hashToken returns the hash under which a token is stored. Spaces, dashes and
// case, as typed by hand, do not matter. ok is false if s cannot be a token.
func hashToken(s string) (hash [32]byte, ok bool) {
	if len(s) > 200 {
		return hash, false
	}
	s = strings.Map(func(r rune) rune {
		if r == '-' || r <= ' ' {
			return -1
		}
		return r
	}, strings.ToUpper(s))
	b, err := tokenCoding.DecodeString(s)
	if err != nil || len(b) != 20 {
		return hash, false
	}
	return sha256.Sum256(append([]byte("postern link\x00"), b...)), true
}

// groups writes a token in groups of four characters, for people to type.
func groups(token string) string {
	var b strings.Builder
	for i, r := range token {
		if i > 0 && i%4 == 0 {
			b.WriteByte('-')
		}
		b.WriteRune(r)
	}
	return b.String()
}

// Made is a link that was just made. Nothing else has its token.
type Made struct {
	URL     string // with the token in the fragment, which browsers do not send to servers
	Code    string // the same token, to type
	Expires time.Time
	Sent    bool   // whether a message with it is queued
	Email   string // that message's address
}

// Invite makes a link by which the person enrols, and sends it if mail is
// configured and the person has an address.
func (l *Links) Invite(ctx context.Context, by postern.Actor, who postern.Person) (Made, error) {
	return l.put(ctx, by, Link{Purpose: Enrol, Person: who.Name, Email: who.Email}, who, l.LinkLife, inviteMessage)
}

// Device makes a link by which the person adds a device. It is shown, not sent.
func (l *Links) Device(ctx context.Context, by postern.Actor, who postern.Person) (Made, error) {
	return l.put(ctx, by, Link{Purpose: Enrol, Person: who.Name}, who, l.ShortLinkLife, nil)
}

func (l *Links) signUp(ctx context.Context, email string) error {
	_, err := l.put(ctx, postern.Actor{}, Link{Purpose: SignUp, Email: email}, postern.Person{Email: email},
		l.ShortLinkLife, signUpMessage)
	return err
}

func (l *Links) prove(ctx context.Context, by postern.Actor, who postern.Person, name, email string) error {
	_, err := l.put(ctx, by, Link{Purpose: Prove, Person: who.Name, Email: email, Detail: name}, postern.Person{},
		l.LinkLife, proveMessage)
	return err
}

func (l *Links) put(ctx context.Context, by postern.Actor, k Link, holder postern.Person, life time.Duration,
	message func(Config, Link, Made) Message,
) (Made, error) {
	made, f, err := l.fresh(k, holder, life, message)
	if err != nil {
		return made, err
	}
	return made, l.Store.PutLink(ctx, by, f)
}

// fresh makes a link. It fails if its holder could not be issued a certificate.
func (l *Links) fresh(k Link, holder postern.Person, life time.Duration,
	message func(Config, Link, Made) Message,
) (Made, Fresh, error) {
	if holder.Email != "" && l.Permits != nil {
		if err := l.Permits(holder.Email); err != nil {
			return Made{}, Fresh{}, err
		}
	}
	token := newToken()
	k.Hash, _ = hashToken(token)
	k.Created = l.now().UTC().Truncate(time.Microsecond)
	k.Expires = k.Created.Add(life)
	page := "/enrol"
	if k.Purpose == Prove {
		page = "/prove"
	}
	made := Made{URL: l.URL + page + "#" + token, Code: groups(token), Expires: k.Expires}
	f := Fresh{Link: k, Event: postern.Event{
		Time: k.Created, Kind: postern.EventPortalLink, Outcome: postern.OK, Person: k.Person, Object: k.Detail,
		Details: map[string]string{"purpose": string(k.Purpose)},
	}}
	if message != nil && l.Mails && k.Email != "" {
		msg := message(l.Config, k, made)
		f.Message, made.Sent, made.Email = &msg, true, k.Email
		f.Event.Details["sent"] = k.Email
	}
	return made, f, nil
}

// Changed returns a function that makes a message about a change to a person, sent
// to the address that they had before. by is who changed it.
func (l *Links) Changed(by string) func(old postern.Person, what string) *Message {
	return func(old postern.Person, what string) *Message {
		return l.mailTo(old, changedMessage(l.Config, old, what, by, l.now()))
	}
}

// ErrLink says that a link is not valid.
var ErrLink = postern.Errorf(postern.Denied, "This link is not valid: it is wrong, has expired, or was used before.").
	WithHint("Ask for a new one.")

// look returns the link of a token if it can still be used for one of the purposes.
// It changes nothing.
func (l *Links) look(ctx context.Context, token string, purposes ...Purpose) (Link, error) {
	k, err := l.unexpired(ctx, token)
	if err == nil && (!k.Used.IsZero() || !slices.Contains(purposes, k.Purpose)) {
		err = ErrLink
	}
	if err != nil {
		return Link{}, err
	}
	return k, nil
}

// unexpired returns the link of a token if it has not expired, used or not.
func (l *Links) unexpired(ctx context.Context, token string) (Link, error) {
	hash, ok := hashToken(token)
	if !ok {
		return Link{}, ErrLink
	}
	k, err := l.Store.Link(ctx, hash)
	if postern.CodeOf(err) == postern.NotFound && err != nil || err == nil && !k.Expires.After(l.now()) {
		err = ErrLink
	}
	return k, err
}
