package portal

import (
	"slices"
	"strings"

	"github.com/postern-project/postern"
)

// Changes says in words what differs between a person before and after a
// change; "" if nothing does.
func Changes(before, after postern.Person) string {
	var all []string
	field := func(name, old, now string) {
		switch {
		case old == now:
		case old == "":
			all = append(all, name+" "+now+" added")
		case now == "":
			all = append(all, name+" "+old+" removed")
		default:
			all = append(all, name+" "+old+" changed to "+now)
		}
	}
	field("e-mail address", before.Email, after.Email)
	field("full name", before.FullName, after.FullName)
	for _, g := range after.Groups {
		if !slices.Contains(before.Groups, g) {
			all = append(all, "joined the group "+g)
		}
	}
	for _, g := range before.Groups {
		if !slices.Contains(after.Groups, g) {
			all = append(all, "left the group "+g)
		}
	}
	return strings.Join(all, ", ")
}
