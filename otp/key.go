package otp

import (
	"context"
	"crypto/rand"
	"time"

	"github.com/postern-project/postern"
)

// Key is a YubiKey slot.
type Key struct {
	PublicID string
	Secret   *Secret // nil: only an upstream service has it
	Person   string  // whom it is assigned to; "": no person
	Label    string
	Serial   int64 // the YubiKey's serial number; 0: not known
	Status   postern.CredentialStatus
	Owner    postern.PersonStatus // the person's status; "" without a person
	Created  time.Time
	Last     Last
}

// Active reports whether the key and its person are active, so that its codes may be
// accepted.
func (k *Key) Active() bool {
	return k.Status == postern.CredentialActive && (k.Person == "" || k.Owner == postern.PersonActive)
}

// Last is what is stored of a key's last accepted code.
type Last struct {
	Seq       int64     // see [Token.Seq]; -1: no code yet
	Timestamp uint32    // the key's own clock, 24 bits
	Nonce     string    // of the request that presented it
	Time      time.Time // when it was accepted; zero: not known
}

// Never is the Last of a key that has not been used.
var Never = Last{Seq: -1}

// Use is one code that is to be accepted.
type Use struct {
	PublicID string
	Person   string          // whom the key must be assigned to; "": anyone or no person
	Last                     // what to store
	Events   []postern.Event // of the acceptance
	Peers    []string        // servers of the sync protocol to send it to
}

// Counter is a key's last use, as servers send it to each other.
type Counter struct {
	PublicID string
	Last
}

// Verdict is the result of a Use.
type Verdict int

// The verdicts.
const (
	Refused  Verdict = iota // unknown or disabled key, suspended person, or another person's key
	Replayed                // not later than the last code
	Accepted
)

// Keys stores YubiKeys, their last use, and API clients. Methods are safe for
// concurrent use, also by several servers on one database. They fail with
// [postern.NotFound] if there is no such key or client, and otherwise only if the store
// is unavailable.
type Keys interface {
	// Key returns the key with a public ID. An active key may be slightly out of date,
	// since Accept checks again; a key that is not active may not.
	Key(ctx context.Context, publicID string) (*Key, error)

	// Accept uses up a code. In one atomic step it checks that the key is active and
	// assigned to u.Person, and that u.Seq is above the last one; only then does it
	// store u.Last and append u.Events to the timeline. That is durable when it returns
	// Accepted. With any other verdict nothing is changed. It returns the previous Last.
	Accept(ctx context.Context, u Use) (Verdict, Last, error)

	// Client returns an API client.
	Client(ctx context.Context, id int64) (*APIClient, error)
}

// APIClient is a program that may use the validation service.
type APIClient struct {
	ID       int64 // 1 to 2³¹-1
	Secret   []byte
	Label    string
	Disabled bool
	MustSign bool // refuse its requests unless they are signed
	Created  time.Time
}

// MakeKey gives the client a new key.
func (c *APIClient) MakeKey() {
	c.Secret = make([]byte, 20)
	rand.Read(c.Secret)
}

// MaxClientID is the highest number of an API client.
const MaxClientID = 1<<31 - 1

// Log appends events to the timeline.
type Log interface {
	Append(ctx context.Context, events ...postern.Event) error
}
