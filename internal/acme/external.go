package acme

import (
	"crypto/rand"
	"time"
)

// NewExternalKey returns a fresh key that will bind one account to a person. Its secret in
// base64url does not begin with "-", which certbot would read as an option.
func NewExternalKey(person, label string, now time.Time) ExternalKey {
	k := ExternalKey{
		ID: newID(), Person: person, Label: label, Secret: make([]byte, 64),
		Created: now.UTC().Truncate(time.Microsecond),
	}
	const dash = 62 // the digit "-" of base64url, six bits
	for ok := false; !ok; ok = k.Secret[0]>>2 != dash {
		rand.Read(k.Secret)
	}
	return k
}
