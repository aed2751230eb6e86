package portal

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"strings"
	"time"

	"github.com/postern-project/postern"
)

// Purpose says what a link is good for.
type Purpose string

// The purposes.
const (
	Enrol   Purpose = "enrol"   // a known person gets a first or further certificate
	SignUp  Purpose = "signup"  // the holder of an address becomes a person
	Recover Purpose = "recover" // as Enrol, after revoking what the person had
	Prove   Purpose = "prove"   // the holder of a domain's address approves a name
)

// Link is a one-time link as it is kept: never its token, only the hash.
type Link struct {
	Hash    [32]byte
	Purpose Purpose
	Person  string // whom it is for; "" for SignUp
	Email   string // where it was sent; "" if it was shown on a screen
	Detail  string // Prove: the name
	Created time.Time
	Expires time.Time
	Used    time.Time // zero: not yet
}

// Links makes and finds one-time links. It is safe for concurrent use.
type Links struct {
	Config
	Store LinkStore
	Mails bool // whether links with an address are sent
	now   func() time.Time
}

// LinkStore keeps links.
//
// PutLink stores the link and queues the message in one transaction, if there
// is one. UseLink marks a link used and reports whether this call did: of any
// number of calls, on any number of servers, at most one gets true, and none
// for a link that has expired. ReleaseLink makes a used link good again, after
// what it was used for failed.
type LinkStore interface {
	PutLink(ctx context.Context, l Link, m *Message, e postern.Event) error
	Link(ctx context.Context, hash [32]byte) (Link, error) // NotFound
	UseLink(ctx context.Context, hash [32]byte, now time.Time) (bool, error)
	ReleaseLink(ctx context.Context, hash [32]byte) error
}

// NewLinks returns Links for use outside the site, as by a command line.
func NewLinks(c Config, s LinkStore, mails bool) (*Links, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	return &Links{Config: c, Store: s, Mails: mails, now: time.Now}, nil
}

var tokenCoding = base32.StdEncoding.WithPadding(base32.NoPadding)

// newToken returns 160 random bits in lower-case base32, 32 characters.
func newToken() string {
	var b [20]byte
	rand.Read(b[:])
	return strings.ToLower(tokenCoding.EncodeToString(b[:]))
}

// hashToken returns the hash under which a token is kept. Spaces, dashes and
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

// groups cuts a token into fours, for people to type.
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

// Made is a fresh link: the only moment at which its token is known.
type Made struct {
	URL     string // with the token in the fragment, which no server and no log sees
	Code    string // the same token, to type
	Expires time.Time
	Sent    bool // whether a message carries it
}

// Invite makes a link by which the person enrols, and sends it if mail is
// configured and the person has an address.
func (l *Links) Invite(ctx context.Context, who postern.Person) (Made, error) {
	return l.put(ctx, Link{Purpose: Enrol, Person: who.Name, Email: who.Email}, l.LinkLife, inviteMessage)
}

// Recover makes a link by which the person enrols again; what they had is
// revoked when it is used.
func (l *Links) Recover(ctx context.Context, who postern.Person) (Made, error) {
	return l.put(ctx, Link{Purpose: Recover, Person: who.Name, Email: who.Email}, l.ShortLinkLife, recoverMessage)
}

// Device makes a link by which the person adds a device. It is shown, not sent.
func (l *Links) Device(ctx context.Context, who postern.Person) (Made, error) {
	return l.put(ctx, Link{Purpose: Enrol, Person: who.Name}, l.ShortLinkLife, nil)
}

func (l *Links) signUp(ctx context.Context, email string) error {
	_, err := l.put(ctx, Link{Purpose: SignUp, Email: email}, l.ShortLinkLife, signUpMessage)
	return err
}

func (l *Links) prove(ctx context.Context, who postern.Person, name, email string) error {
	_, err := l.put(ctx, Link{Purpose: Prove, Person: who.Name, Email: email, Detail: name}, l.LinkLife, proveMessage)
	return err
}

func (l *Links) put(ctx context.Context, k Link, life time.Duration, message func(Config, Link, Made) Message) (Made, error) {
	token := newToken()
	k.Hash, _ = hashToken(token)
	k.Created = l.now().UTC().Truncate(time.Microsecond)
	k.Expires = k.Created.Add(life)
	page := "/enrol"
	if k.Purpose == Prove {
		page = "/prove"
	}
	made := Made{URL: l.URL + page + "#" + token, Code: groups(token), Expires: k.Expires}
	var m *Message
	if message != nil && l.Mails && k.Email != "" {
		msg := message(l.Config, k, made)
		m, made.Sent = &msg, true
	}
	e := postern.Event{
		Time: k.Created, Kind: postern.EventPortalLink, Outcome: postern.OK, Person: k.Person, Object: k.Detail,
		Details: map[string]string{"purpose": string(k.Purpose), "sent": k.Email},
	}
	return made, l.Store.PutLink(ctx, k, m, e)
}

var errLink = postern.Errorf(postern.Denied, "This link is not valid: it is wrong, has expired, or was used before.").
	WithHint("Ask for a new one.")

// look returns the link of a token that could still be used for one of the
// purposes. It changes nothing.
func (l *Links) look(ctx context.Context, token string, purposes ...Purpose) (Link, error) {
	hash, ok := hashToken(token)
	if !ok {
		return Link{}, errLink
	}
	k, err := l.Store.Link(ctx, hash)
	if postern.CodeOf(err) == postern.NotFound && err != nil {
		return Link{}, errLink
	}
	if err != nil {
		return Link{}, err
	}
	if !k.Used.IsZero() || !k.Expires.After(l.now()) {
		return Link{}, errLink
	}
	for _, p := range purposes {
		if k.Purpose == p {
			return k, nil
		}
	}
	return Link{}, errLink
}

// use spends the link: exactly one caller succeeds.
func (l *Links) use(ctx context.Context, k Link) error {
	ok, err := l.Store.UseLink(ctx, k.Hash, l.now())
	if err == nil && !ok {
		return errLink
	}
	return err
}
