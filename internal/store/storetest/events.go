package storetest

import (
	"testing"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/timeline"
)

// Events returns all entries of the timeline.
func Events(t testing.TB, db *store.DB) []postern.Event {
	t.Helper()
	events, err := db.Timeline().Events(t.Context(), timeline.Filter{})
	must(t, err)
	return events
}
