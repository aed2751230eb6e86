package acme

import "github.com/postern-project/postern"

// KeyEvent is the timeline's entry about what was done to a person's external
// account binding key: one of postern.ACMEKeyMade and its neighbours. A key has a
// label only when it is made.
func KeyEvent(person, id, label, did string) postern.Event {
	e := postern.Event{
		Kind: postern.EventACMEAccount, Outcome: postern.OK, Person: person, Object: id,
		Details: map[string]string{"did": did},
	}
	if label != "" {
		e.Details["label"] = label
	}
	return e
}
