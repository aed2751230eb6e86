package timeline

import (
	"cmp"
	"context"
	"slices"

	"github.com/postern-project/postern"
)

// Strength says how well it is known which person did what an entry from a host reports.
type Strength string

// The strengths, the best first.
const (
	// Exact means that this server checked a code of the person for the login from which
	// it was done.
	Exact Strength = "exact"
	// Strong means that it was done in a login or session of the person, or by a client that
	// showed the person's certificate or password, as the host reports.
	Strong Strength = "strong"
	// Guess means that the account's name alone says so.
	Guess Strength = "guess"
)

// Known is the detail of an entry from a host that says how well it was known, when the
// entry was written, which person did it: a [Strength].
const Known = "known"

// StrengthOf returns how well it is known that person did what e reports, by what was
// known when e was written and by the events joined with it, see [Join]. It is "" where
// the server itself saw it, or no person is known.
//
// A host writes what it likes of itself, so only what the server wrote of its own check
// makes it exact: a host can neither write such an entry nor name the login of another
// host.
func StrengthOf(e postern.Event, joined []postern.Event, person string) Strength {
	if e.Host == "" || person == "" {
		return ""
	}
	s := Guess
	if e.Person == person {
		s = cmp.Or(Strength(e.Details[Known]), Guess)
	}
	for _, j := range joined {
		switch {
		case j.Outcome != postern.OK || j.Person != person || j.Index == e.Index || j.Kind == postern.EventLibvirtCall:
		case j.Host == "" && slices.ContainsFunc(j.Links, isLogin):
			return Exact
		case s == Guess:
			s = Strong
		}
	}
	return s
}

func isLogin(l postern.Link) bool { return l.Kind == postern.LinkLogin }

// signIns begin the kinds of event that say whose a session is.
var signIns = []string{"ssh", "pam"}

// Doer returns which person did what e reports, and how well that is known: by the logins
// and sessions alone that e is joined with, so that a session of many calls is not read
// whole. The person is "" if they name none.
func Doer(ctx context.Context, src Source, e postern.Event) (person string, s Strength, err error) {
	j := newJoiner(src)
	j.kinds = signIns
	j.add(e)
	joined, err := j.run(ctx)
	if err != nil {
		return "", "", err
	}
	person = personOf(e, joined)
	return person, StrengthOf(e, joined, person), nil
}

// personOf returns the person of an event, or of the first joined with it that succeeded: a
// refused attempt does not authenticate a person.
func personOf(e postern.Event, joined []postern.Event) string {
	person := e.Person
	for _, j := range joined {
		if person == "" && j.Outcome == postern.OK {
			person = j.Person
		}
	}
	return person
}

// Who returns the person of an entry, and that it is a guess where it is.
func Who(e postern.Event) string {
	if e.Person != "" && e.Details[Known] == string(Guess) {
		return e.Person + " (guess)"
	}
	return e.Person
}

// knownBy says in words how it is known who did what an entry reports; "" for what the
// server itself saw.
func knownBy(e postern.Event, joined []postern.Event, person string) string {
	kind, _ := postern.EventKindOf(e.Kind)
	s := StrengthOf(e, joined, person)
	switch {
	case e.Host == "" || kind.Doer != "" && person == "":
		return ""
	case s == Exact && slices.ContainsFunc(e.Links, isLogin) && e.Details["method"] == "code":
		return "checked here"
	case s == "":
		return "told by " + e.Host
	}
	return "told by " + e.Host + "; the person is " + map[Strength]string{
		Exact: "exact", Strong: "as the host says", Guess: "a guess by the account",
	}[s]
}
