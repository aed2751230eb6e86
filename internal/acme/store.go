package acme

import (
	"context"
	"encoding/json"
	"time"

	"github.com/postern-project/postern"
)

// Account is a client's account.
type Account struct {
	ID           string
	Thumbprint   string // of the key, RFC 7638, base64url
	Key          []byte // JWK
	Contact      []string
	Status       string               // valid, deactivated, revoked
	Person       string               // who stands for it; empty for an anonymous one
	PersonStatus postern.PersonStatus // of the person, when the account was read
	Binding      json.RawMessage
	Created      time.Time
}

// Identifier is a name in the protocol's words.
type Identifier struct {
	Type  string `json:"type"` // dns, ip
	Value string `json:"value"`
}

// Order is an order with all that belongs to it.
type Order struct {
	ID          string           `json:"id"`
	Account     string           `json:"account"`
	Status      string           `json:"status"` // pending, ready, valid, invalid
	Identifiers []Identifier     `json:"identifiers"`
	Authz       []*Authorization `json:"authz"`
	Created     time.Time        `json:"created"`
	Expires     time.Time        `json:"expires"`
	Error       *Problem         `json:"error,omitempty"`
	Serial      string           `json:"serial,omitempty"` // of the certificate
	Replaces    string           `json:"replaces,omitempty"`
	Terms
}

// Terms are what an order says of its certificate besides the names (RFC 8555
// section 7.1.3, draft-ietf-acme-profiles). What is zero the issuer chooses.
type Terms struct {
	Profile   string    `json:"profile,omitempty"`
	NotBefore time.Time `json:"notBefore,omitzero"` // of the certificate, to the second
	NotAfter  time.Time `json:"notAfter,omitzero"`
}

// Authorization is the proof of one of an order's names.
type Authorization struct {
	Status     string       `json:"status"` // pending, valid, invalid, deactivated
	Identifier Identifier   `json:"identifier"`
	Wildcard   bool         `json:"wildcard,omitempty"`
	Challenges []*Challenge `json:"challenges"`
}

// Challenge is one way to prove a name.
type Challenge struct {
	Type      string    `json:"type"`
	Token     string    `json:"token"`
	Status    string    `json:"status"` // pending, processing, valid, invalid
	Validated time.Time `json:"validated,omitzero"`
	Error     *Problem  `json:"error,omitempty"`
}

// The states of accounts, orders, authorizations and challenges.
const (
	pending     = "pending"
	processing  = "processing"
	ready       = "ready"
	valid       = "valid"
	invalid     = "invalid"
	deactivated = "deactivated"
	expired     = "expired"
)

// ExternalKey binds accounts to a person (RFC 8555 section 7.3.4).
type ExternalKey struct {
	ID       string    `json:"id"`
	Person   string    `json:"person"`
	Label    string    `json:"label,omitempty"`
	Secret   []byte    `json:"-"`                 // 64 bytes; 32 in those made before HS384 and HS512 were taken
	Account  string    `json:"account,omitempty"` // that it was used for; a key binds one
	Disabled bool      `json:"disabled,omitempty"`
	Created  time.Time `json:"created"`
}

// Status says whether the key can bind an account, in a word: unused, used or disabled.
func (k ExternalKey) Status() string {
	switch {
	case k.Disabled:
		return "disabled"
	case k.Account != "":
		return "used"
	}
	return "unused"
}

// Store keeps the server's state. Each method is one transaction, durable when
// it returns, and safe for concurrent use, also by several servers. Functions
// that are handed in may be called more than once.
type Store interface {
	// AddAccount keeps a new account, or returns the one that has the key
	// already. With an external key's ID it marks that key as used by the
	// account; a key that is used, disabled or of a person who is not active is
	// Denied.
	AddAccount(ctx context.Context, a Account, externalKey string, event postern.Event) (kept Account, added bool,
		err error)
	// Account and those like it return a NotFound error for none.
	Account(ctx context.Context, id string) (Account, error)
	// AccountAndOrder returns an account and, of its orders, the one with
	// that ID, or nil.
	AccountAndOrder(ctx context.Context, id, order string) (Account, *Order, error)
	// AccountAndCertified returns an account and, of its orders, the one that
	// the certificate with that serial number was issued for, or nil.
	AccountAndCertified(ctx context.Context, id, serial string) (Account, *Order, error)
	AccountByKey(ctx context.Context, thumbprint string) (Account, error)
	// UpdateAccount changes an account. A key that another account has is a
	// Conflict.
	UpdateAccount(ctx context.Context, id string, change func(*Account) error, events ...postern.Event) (Account,
		error)

	// AddExternalKey keeps a new key, while the actor's credential is valid and
	// the key's person is active (Denied).
	AddExternalKey(ctx context.Context, by postern.Actor, k ExternalKey, event postern.Event) error
	// ExternalKey returns the key with its secret, or a NotFound error.
	ExternalKey(ctx context.Context, id string) (ExternalKey, error)
	// ExternalKeys returns a person's keys, without secrets, newest first.
	ExternalKeys(ctx context.Context, person string) ([]ExternalKey, error)
	// DisableExternalKey disables a person's key, and with it the account
	// that it binds.
	DisableExternalKey(ctx context.Context, by postern.Actor, person, id string, event postern.Event) error

	// AddOrder keeps a new order, unless the account has limit unfinished
	// ones (TooMany), or it replaces a certificate that another has replaced
	// (Conflict).
	AddOrder(ctx context.Context, o Order, limit int) error
	// OrderBySerial returns the order that a certificate was issued for, or a
	// NotFound error.
	OrderBySerial(ctx context.Context, serial string) (Order, error)
	// ChangeOrder changes an order. One that gets a certificate in place of
	// one that another order has replaced is a Conflict.
	ChangeOrder(ctx context.Context, id string, change func(*Order) error, events ...postern.Event) (Order, error)
	// Orders returns IDs of an account's orders, newest first, that come
	// after the one given.
	Orders(ctx context.Context, account, after string, limit int) ([]string, error)
	// Proved returns the names that the account has proved in orders that
	// are not expired at that time.
	Proved(ctx context.Context, account string, now time.Time) ([]string, error)
	// Processing returns the orders in which a validation was under way.
	Processing(ctx context.Context) ([]Order, error)
	// RemoveOrders removes orders that expired before that time, and those that have a
	// certificate when that did.
	RemoveOrders(ctx context.Context, before time.Time) error

	// NonceKey returns the key that all servers make nonces with.
	NonceKey(ctx context.Context) ([32]byte, error)
	// UseNonce reports whether a nonce is newer than the one that a slot keeps,
	// on all servers, or that one is newer by more than [NonceReset]. If so, the
	// slot keeps this one's time, in microseconds since 1970.
	UseNonce(ctx context.Context, slot uint16, made int64) (bool, error)
}

// find returns the authorization and challenge with these numbers.
func (o *Order) find(authz, challenge int) (*Authorization, *Challenge) {
	if authz < 0 || authz >= len(o.Authz) {
		return nil, nil
	}
	a := o.Authz[authz]
	if challenge < 0 || challenge >= len(a.Challenges) {
		return a, nil
	}
	return a, a.Challenges[challenge]
}

// settle derives an order's state from what belongs to it.
func (o *Order) settle(now time.Time) {
	if o.Status == valid || o.Status == invalid {
		return
	}
	if !now.Before(o.Expires) {
		o.Status = invalid
		return
	}
	all := true
	for _, a := range o.Authz {
		switch a.Status {
		case valid:
		case pending:
			all = false
		default:
			o.Status = invalid
			for _, c := range a.Challenges {
				if c.Error != nil && o.Error == nil {
					o.Error = c.Error
				}
			}
			return
		}
	}
	if all {
		o.Status = ready
	}
}

// names returns the order's names as a certificate carries them.
func (o *Order) names() []string {
	var out []string
	for _, id := range o.Identifiers {
		out = append(out, id.Value)
	}
	return out
}

// Processing reports whether a validation is under way.
func (o *Order) Processing() bool {
	for _, a := range o.Authz {
		for _, c := range a.Challenges {
			if c.Status == processing && a.Status == pending {
				return true
			}
		}
	}
	return false
}

// Proved returns the names that were proved, wildcards with their asterisk.
func (o *Order) Proved() []string {
	var out []string
	for _, a := range o.Authz {
		if a.Status != valid {
			continue
		}
		if a.Wildcard {
			out = append(out, "*."+a.Identifier.Value)
		} else {
			out = append(out, a.Identifier.Value)
		}
	}
	return out
}
