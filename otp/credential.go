package otp

import (
	"fmt"
	"time"

	"github.com/postern-project/postern"
)

// Where the secret of a credential is.
const (
	SecretHere     = "here"
	SecretUpstream = "outside" // with the upstream validation service
)

// Credential is what a person makes one-time passwords with, a YubiKey or an
// authenticator, as it is shown. It has no secret.
type Credential struct {
	Kind     postern.CredentialKind   `json:"kind"`
	ID       string                   `json:"id"`
	Person   string                   `json:"person,omitempty"`
	Label    string                   `json:"label,omitempty"`
	Status   postern.CredentialStatus `json:"status"`
	Secret   string                   `json:"secret"` // SecretHere or SecretUpstream
	Serial   int64                    `json:"serial,omitempty"`
	Counter  *int64                   `json:"counter,omitempty"` // of sessions for a YubiKey, else of codes
	Use      *int64                   `json:"use,omitempty"`     // within the session
	Created  time.Time                `json:"created,omitzero"`
	LastUsed time.Time                `json:"last_used,omitzero"`
}

// Credential returns what is shown of a YubiKey.
func (k *Key) Credential() Credential {
	c := Credential{
		Kind: postern.YubiKey, ID: k.PublicID, Person: k.Person, Label: k.Label, Status: k.Status,
		Secret: SecretHere, Serial: k.Serial, Created: k.Created, LastUsed: k.Last.Time,
	}
	if k.Secret == nil {
		c.Secret = SecretUpstream
	}
	if k.Last.Seq >= 0 {
		counter, use := k.Last.Seq>>8, k.Last.Seq&0xff
		c.Counter, c.Use = &counter, &use
	}
	return c
}

// Credential returns what is shown of an authenticator.
func (o *OATH) Credential() Credential {
	c := Credential{
		Kind: o.Kind, ID: o.ID, Person: o.Person, Label: o.Label, Status: o.Status,
		Secret: SecretHere, Created: o.Created, LastUsed: o.Used,
	}
	if o.Kind == postern.HOTP && o.Moving >= 0 {
		c.Counter = &o.Moving
	}
	return c
}

// LastCode says in words which code was accepted last, "" if none was.
func (c Credential) LastCode() string {
	switch {
	case c.Counter != nil && c.Use != nil:
		return fmt.Sprintf("session %d, use %d", *c.Counter, *c.Use)
	case c.Counter != nil:
		return fmt.Sprintf("counter %d", *c.Counter)
	}
	return ""
}

// ClientInfo is an API client as it is shown. It has no key.
type ClientInfo struct {
	ID       int64  `json:"id"`
	Label    string `json:"label,omitempty"`
	Signs    bool   `json:"signs"` // it has a key
	MustSign bool   `json:"must_sign"`
	Disabled bool   `json:"disabled"`
}

// Info returns what is shown of the client.
func (c *APIClient) Info() ClientInfo {
	return ClientInfo{c.ID, c.Label, len(c.Secret) > 0, c.MustSign, c.Disabled}
}
