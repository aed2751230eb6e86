package postern

import (
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// PersonStatus says whether a person may sign in.
type PersonStatus string

// A suspended person keeps their credentials, none of which grants access. Of a
// removed person the name is kept, so that the timeline stays readable and the
// name is not given to another person.
const (
	PersonActive    PersonStatus = "active"
	PersonSuspended PersonStatus = "suspended"
	PersonRemoved   PersonStatus = "removed"
)

// Person is a human being who has credentials. Name is the key: it never changes
// and is never given to another person.
type Person struct {
	Name     string       `json:"name"`                // lower case, 1 to 64 of a-z 0-9 . _ -
	Email    string       `json:"email,omitempty"`     // unique, compared without case; may be empty
	FullName string       `json:"full_name,omitempty"` // for people to read; never compared
	Groups   []string     `json:"groups,omitempty"`    // sorted, each a ValidGroup
	Status   PersonStatus `json:"status"`
	Created  time.Time    `json:"created"` // UTC, microseconds

	// DirectoryGroups are those of Groups that an LDAP directory gives, and that only
	// it can take away.
	DirectoryGroups []string `json:"directory_groups,omitempty"`
}

// OwnGroups returns the groups that can be changed here.
func (p Person) OwnGroups() []string {
	var own []string
	for _, g := range p.Groups {
		if !slices.Contains(p.DirectoryGroups, g) {
			own = append(own, g)
		}
	}
	return own
}

// SignedUp is the group of people who signed up by themselves, until an
// administrator takes them out of it. They chose their own names, so a rule for
// SSH certificates that names no group does not apply to them where a name alone
// would grant access.
const SignedUp = "signed-up"

// Active reports whether the person may sign in at all.
func (p Person) Active() bool { return p.Status == PersonActive }

var nameRE = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`)

// ValidName reports whether s may name a person, or a group that is made here.
func ValidName(s string) bool { return nameRE.MatchString(s) }

var groupRE = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^[\p{Ll}\p{Lo}\p{Nd}]([\p{Ll}\p{Lo}\p{Mn}\p{Nd}._@ -]*[\p{Ll}\p{Lo}\p{Mn}\p{Nd}._-])?$`)
})

// ValidGroup reports whether s may name a group: one made here, see [ValidName], or one
// from an LDAP directory, as "domain admins" or "linux-admins@corp", of at most 128
// bytes in lower case.
func ValidGroup(s string) bool { return len(s) <= 128 && groupRE().MatchString(s) }

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
