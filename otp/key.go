package otp

import (
	"context"
	"time"

	"github.com/postern-project/postern"
)

// Key is a YubiKey slot that the house knows.
type Key struct {
	PublicID string
	Secret   *Secret // nil: the secret stays with an outside service
	Person   string  // who holds it; "" nobody yet
	Label    string
	Serial   int64 // the device's number, 0 if not known
	Status   postern.CredentialStatus
	Owner    postern.PersonStatus // the person's status; "" without a person
	Created  time.Time
	Last     Last
}

// Passes reports whether codes of the key open anything at all.
func (k *Key) Passes() bool {
	return k.Status == postern.CredentialActive && (k.Person == "" || k.Owner == postern.PersonActive)
}

// Last is what a key's newest accepted code left behind.
type Last struct {
	Seq       int64     // see [Token.Seq]; -1: no code yet
	Timestamp uint32    // the key's own clock, 24 bits
	Nonce     string    // of the request that presented it
	Time      time.Time // when it was accepted; zero: not known
}

// Never is the Last of a key that has not been used.
var Never = Last{Seq: -1}

// Use is one code on its way to be accepted.
type Use struct {
	PublicID string
	Person   string          // whom the key must belong to; "" anybody
	Last                     // what is to be left behind
	Events   []postern.Event // of an acceptance
	Peers    []string        // servers of the sync protocol that are to hear of it
}

// Counter is a key's last use, as one server tells another.
type Counter struct {
	PublicID string
	Last
}

// Verdict says what became of a Use.
type Verdict int

// The verdicts. Only Accepted ever means yes.
const (
	Refused  Verdict = iota // unknown or disabled key, suspended person, or another's key
	Replayed                // not later than the last code
	Accepted
)

// Keys keeps YubiKeys, what they were last used for, and API clients. Methods
// are safe for concurrent use, by several servers on one database too. They
// fail with [postern.NotFound] where there is no such thing and otherwise only
// when the store cannot answer.
type Keys interface {
	// Key returns the key with a public ID. It may be a little older than the
	// truth (Accept has the last word), but not if it does not pass.
	Key(ctx context.Context, publicID string) (*Key, error)

	// Accept takes a code: in one atomic step it checks that the key passes,
	// belongs to u.Person, and that u.Seq is above the last; only then does it
	// set the last and append u.Events to the timeline. When it returns
	// Accepted that is durable. With any other verdict nothing has changed.
	// Last is what stood before.
	Accept(ctx context.Context, u Use) (Verdict, Last, error)

	// Client returns an API client.
	Client(ctx context.Context, id int64) (*APIClient, error)
}

// APIClient is a program that may ask the validation service.
type APIClient struct {
	ID       int64 // 1 to 2³¹-1
	Secret   []byte
	Label    string
	Disabled bool
	MustSign bool // refuse its requests unless they are signed
	Created  time.Time
}

// MaxClientID is the highest number of an API client.
const MaxClientID = 1<<31 - 1

// Log appends events to the timeline.
type Log interface {
	Append(ctx context.Context, events ...postern.Event) error
}
