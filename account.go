package postern

import (
	"strings"
	"unicode"
)

// Account is a name by which hosts know a person: that of a local account, or of
// one in a directory, as alice@corp.example.com or CORP\alice.
type Account struct {
	// Name is what PAM and sshd call the account, at most 256 bytes. One * in it
	// stands for any text but the empty one.
	Name string `json:"name"`
	// Host is the one where the account is the person's; "" everywhere.
	Host string `json:"host,omitempty"`
	// Person is whose it is. "" in a name with a *: the person whose name the *
	// stands for, in lower case.
	Person string `json:"person,omitempty"`
	// AnyCase says that accounts are compared without case, as in most directories.
	AnyCase bool `json:"any_case,omitempty"`
}

// Validate reports what is wrong with the account.
func (a Account) Validate() error {
	stars := strings.Count(a.Name, "*")
	switch {
	case a.Name == "" || len(a.Name) > 256 || strings.ContainsFunc(a.Name, func(r rune) bool {
		return r < ' ' || r == 0x7f || r == 0xfffd
	}):
		return Errorf(Invalid, "an account's name is 1 to 256 bytes of text")
	case stars > 1 || a.Name == "*":
		return Errorf(Invalid, "an account's name has one * at most, and something beside it")
	case a.Person == "" && stars == 0:
		return Errorf(Invalid, "the account has no person").
			WithHint("name a person, or put a * where the person's name is")
	case a.Person != "" && !ValidName(a.Person):
		return Errorf(Invalid, "%q cannot be a person's name", a.Person)
	case len(a.Host) > 253:
		return Errorf(Invalid, "a host's name has 253 bytes at most")
	}
	return nil
}

// person returns whose an account of that name is by a, or "" if a does not
// speak of it.
func (a Account) person(name string) string {
	pattern := a.Name
	if a.AnyCase {
		pattern, name = foldCase(pattern), foldCase(name)
	}
	before, after, star := strings.Cut(pattern, "*")
	if !star {
		if pattern == name {
			return a.Person
		}
		return ""
	}
	if len(name) <= len(before)+len(after) || !strings.HasPrefix(name, before) || !strings.HasSuffix(name, after) {
		return ""
	}
	if a.Person != "" {
		return a.Person
	}
	if stood := foldCase(name[len(before) : len(name)-len(after)]); ValidName(stood) {
		return stood
	}
	return ""
}

// foldCase maps letters that differ in case only to one. No other letter becomes
// one of ASCII, as the Kelvin sign would become a k: a directory may have both.
func foldCase(s string) string {
	return strings.Map(func(r rune) rune {
		if lower := unicode.ToLower(r); r < 0x80 || lower >= 0x80 {
			return lower
		}
		return r
	}, s)
}

// rank says how closely a speaks of one account: the closest decides.
func (a Account) rank() int {
	rank := 0
	if !strings.Contains(a.Name, "*") {
		rank += 4
	}
	if a.Person != "" {
		rank += 2
	}
	if a.Host != "" {
		rank++
	}
	return rank
}

// AccountPerson returns the name of the person whose an account on a host is: by
// the accounts that speak of it, of which a whole name goes before one with a *,
// a named person before any, and a host before everywhere; else the person of
// the account's own name, which need not exist. It fails with [Denied] where two
// that are equally close name two people.
func AccountPerson(accounts []Account, name, host string) (string, error) {
	best, person := -1, name
	for _, a := range accounts {
		if a.Host != "" && !strings.EqualFold(a.Host, host) {
			continue
		}
		found := a.person(name)
		switch rank := a.rank(); {
		case found == "" || rank < best:
		case rank > best:
			best, person = rank, found
		case found != person:
			person = ""
		}
	}
	if person == "" {
		return "", Errorf(Denied, "two people have the account %q", name)
	}
	return person, nil
}
