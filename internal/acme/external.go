package acme

import (
	"crypto/rand"
	"time"
)

// NewExternalKey returns a fresh key that will bind one account to a person.
func NewExternalKey(person, label string, now time.Time) ExternalKey {
	k := ExternalKey{
		ID: newID(), Person: person, Label: label, Secret: make([]byte, 64),
		Created: now.UTC().Truncate(time.Microsecond),
	}
	rand.Read(k.Secret)
	return k
}
