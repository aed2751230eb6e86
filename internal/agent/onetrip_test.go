package agent

import (
	"context"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/sshd"
)

// asked is a checker that accepts the code "right", and counts what it is asked.
type asked struct{ codes, accounts int }

func (a *asked) CheckCode(_ context.Context, t sshd.Attempt) (sshd.Proof, error) {
	a.codes++
	if t.Code != "right" {
		return sshd.Proof{}, postern.Errorf(postern.Denied, "wrong")
	}
	return sshd.Proof{Person: "the person of " + t.User}, nil
}

func (a *asked) CheckAccount(context.Context, string) (string, error) {
	a.accounts++
	return "", postern.Errorf(postern.Denied, "suspended")
}

// TestALoginAsksTheServerOnce answers the account's question once behind an accepted code of
// that account, and asks the server in every other case.
func TestALoginAsksTheServerOnce(t *testing.T) {
	for name, c := range map[string]struct {
		user, code string // of the attempt before; "" for none
		age        time.Duration
		known      bool
	}{
		"right code":              {"alice", "right", 0, true},
		"no code":                 {"", "", 0, false},
		"wrong code":              {"alice", "wrong", 0, false},
		"another account's":       {"bob", "right", 0, false},
		"a code of some time ago": {"alice", "right", accountWithin, false},
		"a wrong one, another's":  {"bob", "wrong", 0, false},
	} {
		server := &asked{}
		o := &oneTrip{Checker: server}
		if c.user != "" {
			_, _ = o.CheckCode(t.Context(), sshd.Attempt{User: c.user, Code: c.code})
			if a, ok := o.accepted[c.user]; ok {
				a.at = a.at.Add(-c.age)
				o.accepted[c.user] = a
			}
		}
		person, err := o.CheckAccount(t.Context(), "alice")
		if (err == nil) != c.known || c.known && person != "the person of alice" || (server.accounts == 0) != c.known {
			t.Errorf("%s: %q, %v; the server was asked %d times", name, person, err, server.accounts)
		}
		if _, err := o.CheckAccount(t.Context(), "alice"); err == nil {
			t.Errorf("%s: the answer was given twice", name)
		}
	}
}
