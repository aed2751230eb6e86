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
	if len(kinds) < len(eventSentences) {
		t.Errorf("%d kinds were found, and %d have words", len(kinds), len(eventSentences))
	}
}
