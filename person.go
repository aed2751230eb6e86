package postern

import (
	"regexp"
	"strings"
	"time"
)

// PersonStatus says whether a person may come in.
type PersonStatus string

// A suspended person keeps what they hold but nothing of it opens a door; a
// removed person is a name that is kept so that the timeline stays readable
// and the name is not given to somebody else.
const (
	PersonActive    PersonStatus = "active"
	PersonSuspended PersonStatus = "suspended"
	PersonRemoved   PersonStatus = "removed"
)

// Person is somebody who may come in. Name is the key: it never changes and is
// never given to another person.
type Person struct {
	Name     string       `json:"name"`                // lower case, 1 to 64 of a-z 0-9 . _ -
	Email    string       `json:"email,omitempty"`     // unique, compared without case; may be empty
	FullName string       `json:"full_name,omitempty"` // for people to read; never compared
	Groups   []string     `json:"groups,omitempty"`    // sorted, same alphabet as Name
	Status   PersonStatus `json:"status"`
	Created  time.Time    `json:"created"` // UTC, microseconds
}

// SignedUp is the group of those who added themselves, until an administrator
// takes them out of it. What is good for everybody is not good for them where
// the name that they chose could open something: see sshd.RuleFor.
const SignedUp = "signed-up"

// Active reports whether the person may come in at all.
func (p Person) Active() bool { return p.Status == PersonActive }

var nameRE = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`)

// ValidName reports whether s may name a person or a group.
func ValidName(s string) bool { return nameRE.MatchString(s) }

// CleanEmail returns the address as it is stored and compared: trimmed, lower
// case. It fails unless s is one plain addr-spec of at most 254 bytes, without
// display name, quotes or control characters.
func CleanEmail(s string) (string, error) {
	s = strings.ToLower(strings.TrimSpace(s))
	local, domain, ok := strings.Cut(s, "@")
	if !ok || local == "" || domain == "" || len(s) > 254 || strings.Contains(domain, "@") {
		return "", Errorf(Invalid, "%q is not an e-mail address", s)
	}
	for _, r := range s {
		if r <= ' ' || r > '~' || strings.ContainsRune(`"(),:;<>[\]`, r) {
			return "", Errorf(Invalid, "%q is not a plain e-mail address", s)
		}
	}
	return s, nil
}
