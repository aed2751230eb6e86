package postern

// Actor is who asks for a change, with which credential they proved it, and
// from where. The zero Actor is the command line, or the server itself.
//
// What grants access is written only while the actor's credential is valid: the
// store checks it in the transaction that writes.
type Actor struct {
	Person     string // Person.Name; empty for a program, or a person who is not known
	Credential Link   // what they showed; the zero Link is one that is not kept as a credential
	Address    string // peer IP address, without port
}

// By returns the actor's name for an event about a credential of person, or ""
// if the actor is that person.
func (a Actor) By(person string) string {
	if a.Person == person {
		return ""
	}
	return a.Person
}
