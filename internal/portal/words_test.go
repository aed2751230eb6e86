package portal

import (
	"testing"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/posterntest"
)

// TestEveryKindOfEventHasWords looks at all that are declared.
func TestEveryKindOfEventHasWords(t *testing.T) {
	kinds := posterntest.EventKinds(t)
	for name, kind := range kinds {
		if eventWords(postern.Event{Kind: kind}) == kind {
			t.Errorf("%s has no words", name)
		}
	}
}

// TestPeopleAreNotifiedOfWhatGrants compares the kinds that say so with those that
// there are words for in a message.
func TestPeopleAreNotifiedOfWhatGrants(t *testing.T) {
	for _, k := range postern.EventKinds {
		if _, ok := notices[k.Name]; ok != k.Grants {
			t.Errorf("%s: it grants something: %v; a message says so: %v", k.Name, k.Grants, ok)
		}
	}
}
