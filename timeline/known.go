package timeline

import (
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
	// Strong means that it was done in a login or session of the person, as the host
	// reports.
	Strong Strength = "strong"
	// Guess means that the account's name alone says so.
	Guess Strength = "guess"
)

// StrengthOf returns how well it is known that person did what e reports, by the events
// joined with it, see [Join]. It is "" where the server itself saw it, or no person is
// known.
//
// A host writes what it likes of itself, so only what the server wrote of its own check
// makes it exact: a host can neither write such an entry nor name the login of another
// host.
func StrengthOf(e postern.Event, joined []postern.Event, person string) Strength {
	if e.Host == "" || person == "" {
		return ""
	}
	s := Guess
	for _, j := range joined {
		switch {
		case j.Outcome != postern.OK || j.Person != person || j.Index == e.Index:
		case j.Host == "" && slices.ContainsFunc(j.Links, isLogin):
			return Exact
		default:
			s = Strong
		}
	}
	return s
}

func isLogin(l postern.Link) bool { return l.Kind == postern.LinkLogin }

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
