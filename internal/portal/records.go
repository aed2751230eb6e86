package portal

import (
	"context"
	"time"

	"github.com/postern-project/postern"
)

// Method is how a name was proved.
type Method string

// The methods.
const (
	ByMail    Method = "mail"
	ByHTTP    Method = "http"
	ByDNS     Method = "dns"
	ByAllowed Method = "allowed" // an administrator's list; nothing is stored in a Proof
)

// Proof says whether one person has proved control of one name.
type Proof struct {
	Person string
	Name   string
	Value  string // content of the file or TXT record; bound to person and name
	Method Method // "" until proved
	Proved time.Time
	Asked  time.Time // when an administrator was asked to allow the name; zero if not
}

// Order is a request for a server certificate whose names are being proved.
type Order struct {
	ID      string
	Person  string
	Names   []string
	CSR     []byte // DER; empty if the key is made at the end
	Created time.Time
	Expires time.Time
	Serial  string // of the certificate that was issued; "" while open
}

// Allowed is a pattern of names on the administrators' list.
type Allowed struct {
	Pattern string
	Person  string // who may have the names; "" means all
	By      string
	Created time.Time
}

// RecoveryCode is one recovery code as it is stored.
type RecoveryCode struct {
	ID   string
	Hash [32]byte
}

// Store stores the portal's data.
//
// Every method is one transaction, durable when it returns, and safe for
// concurrent use, also by several servers. An event that a method takes is appended
// in the same transaction. A method that takes an actor writes nothing, and fails
// with Denied, if the actor's credential is not valid any more; so do those of
// People, Authority and Keyring.
type Store interface {
	LinkStore
	Outbox
	NotificationStore

	// PortalKey returns 32 random bytes, the same on every server and after
	// every restart.
	PortalKey(ctx context.Context) ([]byte, error)
	// Count adds one to the counter of key in the time window that contains now, and
	// returns it. One that is above most already stays, and nothing is written.
	Count(ctx context.Context, key string, most int64, window time.Duration, now time.Time) (int64, error)
	// RemindOnce queues m, which is sent that long before the certificate expires,
	// unless this reminder or a later one was queued before. It reports whether it
	// queued m.
	RemindOnce(ctx context.Context, serial string, before time.Duration, m Message) (bool, error)
	// ForgetExpired deletes links, orders and counters that expired long ago.
	ForgetExpired(ctx context.Context, now time.Time) error

	// PutRecoveryCodes replaces all codes of a person.
	PutRecoveryCodes(ctx context.Context, by postern.Actor, person string, codes []RecoveryCode, now time.Time,
		e postern.Event) error
	// RecoveryCodes returns how many codes the person has left.
	RecoveryCodes(ctx context.Context, person string) (int, error)

	// Proof returns the proof of a person and a name. If there is none, it creates one
	// with the value.
	Proof(ctx context.Context, person, name, value string) (Proof, error)
	// PutProof changes Method, Proved and Asked.
	PutProof(ctx context.Context, by postern.Actor, p Proof, e postern.Event) error
	// AskedProofs returns the proofs that wait for an administrator's decision.
	AskedProofs(ctx context.Context) ([]Proof, error)

	PutOrder(ctx context.Context, by postern.Actor, o Order) error
	Order(ctx context.Context, id string) (Order, error) // NotFound
	// OrdersOf returns a person's open orders, newest first.
	OrdersOf(ctx context.Context, person string, now time.Time) ([]Order, error)
	DropOrder(ctx context.Context, by postern.Actor, id string) error

	Allowed(ctx context.Context) ([]Allowed, error)
	PutAllowed(ctx context.Context, by postern.Actor, a Allowed, e postern.Event) error
	DropAllowed(ctx context.Context, by postern.Actor, pattern, person string, e postern.Event) error
}
