package portal

import (
	"strings"

	"github.com/postern-project/postern"
)

// eventWords returns a short title for an event.
func eventWords(e postern.Event) string {
	did, sent := e.Details["did"], e.Details["sent"]
	switch {
	case e.Kind == postern.EventACMEAccount && strings.HasPrefix(did, "key "):
		return "ACME " + did
	case e.Kind == postern.EventACMEAccount && did != "":
		return "ACME account " + did
	case e.Kind == postern.EventPortalLink && sent != "":
		return "One-time link sent to " + sent
	}
	if k, ok := postern.EventKindOf(e.Kind); ok {
		return k.Title
	}
	return e.Kind
}
